"""Settings that a judge reads from a model folder's generation_config.json, and a warning about ignored ones."""

import logging
from functools import cache
from pathlib import Path

from urt_jax.errors import BadInputError, shown
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import read_object

DEFAULT_NEW_TOKENS = 1024  # if the file gives no max_new_tokens
MAX_NEW_TOKENS = 2**18  # the longest context of a published model; more is a typo, and its cache would fill the memory

# Settings that change the response, and the values at which they have no effect.
_NEUTRAL = {
    "repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "num_beams": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "max_time": None,
    "bad_words_ids": None,
    "force_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "penalty_alpha": None,
    "guidance_scale": 1,
    "stop_strings": None,
    "watermarking_config": None,
}


def stored_new_tokens(folder: Path) -> int:
    """Return the most tokens of a response by generation_config.json; log a warning about ignored settings once.

    A judge decodes by the settings of its call: the likeliest token, or a sample at the call's temperature from all
    tokens. It is trained so too, so a penalty meant for the base model would only disturb it.

    Raises:
        BadInputError: the file cannot be read, or its max_new_tokens is not a number of tokens.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return DEFAULT_NEW_TOKENS
    stored = Fields(read_object(path), str(path))
    if "max_new_tokens" in stored and stored["max_new_tokens"] is None:
        raise BadInputError(f"{path}: max_new_tokens is None; give a number of tokens, or leave it out")
    limit = stored.integer("max_new_tokens", DEFAULT_NEW_TOKENS, at_least=1, at_most=MAX_NEW_TOKENS)
    ignored = {name: stored[name] for name, neutral in _NEUTRAL.items() if stored.get(name) not in (None, neutral, [])}
    if ignored:
        _tell(str(path), ", ".join(f"{name} {shown(value, 40)}" for name, value in ignored.items()))
    return limit


@cache
def _tell(path: str, settings: str) -> None:
    logging.getLogger("urt_jax").warning(
        "%s: judging ignores %s; a judge decodes by the settings of its call", path, settings
    )
