"""One published model family a module: configuration, weight names, picture geometry, chat layout."""

import difflib
from typing import Any

from urt_jax.data.examples import BadInputError
from urt_jax.families import qwen2_5_vl
from urt_jax.families.family import Family

FAMILIES: dict[str, Family] = {family.model_type: family for family in (qwen2_5_vl.FAMILY,)}


def family_of(config: dict[str, Any], *, where: str) -> Family:
    """Return the family that a parsed config.json names.

    Raises:
        BadInputError: the model type is missing or unknown.
    """
    model_type = config.get("model_type")
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    near = difflib.get_close_matches(str(model_type), FAMILIES, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise BadInputError(f"{where}: model_type {model_type!r} is not known; known are {', '.join(FAMILIES)}{hint}")
