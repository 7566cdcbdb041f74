"""Checks of the settings of a Python API call: their types and bounds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.data.examples import MAX_FPS
from urt_jax.data.frame_picking import MAX_CLIP_FRAMES
from urt_jax.errors import BadInputError, shown, unknown_choice
from urt_jax.files.fields import Fields
from urt_jax.generation.stored_settings import MAX_NEW_TOKENS

MAX_VOTES = 1000  # of one pair in one order
MAX_TEMPERATURE = 100.0  # at which all tokens are equally likely, within a few per cent
MAX_SEED = 2**32 - 1  # random keys are made from 32 bits, to which a larger seed would be cut
MAX_BATCH = 2**16  # responses decoded at a time
MAX_PROMPT_TOKENS = 2**20  # above every published context length
MAX_WORKERS = 256  # processes of one judge
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "xla", "splash", "cudnn")

_CHECKS: dict[str, Callable[[Fields], Any]] = {
    "order": lambda given: given.choice("order", ("given", "both")),
    "think": lambda given: given.flag("think"),
    "temperature": lambda given: given.number("temperature", at_least=0, at_most=MAX_TEMPERATURE),
    "seed": lambda given: given.integer("seed", at_most=MAX_SEED),
    "votes": lambda given: given.integer("votes", at_least=1, at_most=MAX_VOTES),
    "max_new_tokens": lambda given: given.integer("max_new_tokens", None, at_least=1, at_most=MAX_NEW_TOKENS),
    "batch_size": lambda given: given.integer("batch_size", at_least=1, at_most=MAX_BATCH),
    "max_prompt_tokens": lambda given: given.integer("max_prompt_tokens", None, at_least=1, at_most=MAX_PROMPT_TOKENS),
    "workers": lambda given: given.integer("workers", at_most=MAX_WORKERS),
    "max_frames": lambda given: given.integer("max_frames", None, at_least=1, at_most=MAX_CLIP_FRAMES),
    "fps": lambda given: given.number("fps", None, above=0, at_most=MAX_FPS),
    "caption": lambda given: given.text("caption", None),
    "question": lambda given: given.text("question", None),
    "revision": lambda given: given.text("revision", None),
    "progress": lambda given: _check_callable(given, "progress"),
    "name": lambda given: _check_name(given),
    "dtype": lambda given: _check_dtype(given),
    "attention": lambda given: given.choice("attention", ATTENTIONS),
}


def check_call(method: str, **settings: Any) -> None:
    """Refuse settings of a call that have the wrong type or are out of bounds.

    Raises:
        BadInputError: the message names the method and the setting, the given value and the needed one.
    """
    votes, temperature = settings.get("votes"), settings.get("temperature")
    if isinstance(votes, int) and not isinstance(votes, bool) and (votes < 1 or (votes > 1 and temperature == 0)):
        raise BadInputError(
            f"votes={votes} at temperature {shown(temperature)}: give votes >= 1, and a temperature to vote"
        )
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}
    given = Fields(plain, method)
    for name in settings:
        _CHECKS[name](given)


def _check_callable(given: Fields, name: str) -> None:
    if given[name] is not None and not callable(given[name]):
        raise given.refusal(name, "a function of (done, total), or None")


def _check_name(given: Fields) -> None:
    if not isinstance(given["name"], str | Path) or not str(given["name"]):
        raise given.refusal("name", "a shipped model, a folder, or org/name of the hub")


def _check_dtype(given: Fields) -> None:
    try:
        name = np.dtype(given["dtype"]).name
    except TypeError:
        name = given["dtype"] if isinstance(given["dtype"], str) else shown(given["dtype"])
    if given["dtype"] is None or name not in DTYPES:
        raise BadInputError(f"{given.where}: dtype {unknown_choice(name, DTYPES)}")
