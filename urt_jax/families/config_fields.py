"""Checked fields of a model's config.json: every size is bounded before anything is allocated."""

from typing import Any

from urt_jax.errors import BadInputError
from urt_jax.families.family import Json
from urt_jax.files.fields import Fields

# Far above the largest published models (126 layers, width 18,432, 262,144 tokens), and below sizes that would fill
# the memory before the weights are read.
MAX_LAYERS = 1024
MAX_WIDTH = 2**18
MAX_HEADS = 4096
MAX_VOCABULARY = 2**22
MAX_TOKEN_ID = 2**31 - 1
MAX_SIDE = 2**14  # pixels of a tile, a window or a patch; positions along a side
MAX_CHANNELS = 64


def config_fields(config: Json) -> Fields:
    """Return the settings of config.json as checked fields."""
    return config if isinstance(config, Fields) else Fields(config, "config.json")


def is_tied(config: Fields, text: Fields) -> bool:
    """Return whether config.json ties the head to the embedding, at its top level or in its text model."""
    return config.flag("tie_word_embeddings", False) or text.flag("tie_word_embeddings", False)


def refuse_others(fields: Fields, known: dict[str, tuple[Any, ...]], *, name: str) -> None:
    """Refuse values of computation settings that this code does not support; ``known`` lists the supported ones.

    Raises:
        BadInputError: naming setting, value, and the supported values; a missing or null setting is accepted.
    """
    for key, values in known.items():
        value = fields.get(key)
        if value is not None and not any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in values
        ):
            shown = " or ".join(repr(one) for one in values) or "nothing"
            raise fields.refusal(key, f"{shown}, as in published {name} checkpoints; no other value is supported")


def layer_numbers(fields: Fields, key: str, default: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return ascending layer numbers below ``depth``.

    Raises:
        BadInputError: they are not.
    """
    numbers = fields.integers(key, default, at_most=MAX_LAYERS)
    if list(numbers) != sorted(set(numbers)) or any(number >= depth for number in numbers):
        raise BadInputError(f"{fields.where}: {key} is {list(numbers)[:8]}; needed ascending layers below {depth}")
    return tuple(numbers)
