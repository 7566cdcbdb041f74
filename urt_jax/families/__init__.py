"""Published model families, one per module: configuration, weight names, picture geometry, chat layout."""

from urt_jax.errors import BadInputError, unknown_choice
from urt_jax.families import llava_onevision, qwen2_5_vl, qwen3_vl
from urt_jax.families.family import Family, Json

FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (qwen2_5_vl.FAMILY, qwen3_vl.FAMILY, llava_onevision.FAMILY)
}
ORIGINALS = {family.original_model_type: family for family in FAMILIES.values() if family.original_model_type}


def family_of(config: Json, *, where: str) -> Family:
    """Return the family that a parsed config.json names; the original LLaVA layout is recognised too.

    Raises:
        BadInputError: the model type is missing or unknown.
    """
    model_type = str(config.get("model_type"))
    known = FAMILIES | {str(name): family for name, family in ORIGINALS.items()}
    if model_type in known:
        return known[model_type]
    raise BadInputError(f"{where}: model_type {unknown_choice(config.get('model_type'), known)}")
