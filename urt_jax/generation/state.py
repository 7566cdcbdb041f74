"""Records of decoding: the settings of each row, the state that the loop carries, and the sampled responses."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from urt_jax.generation.sampling import Sampling
from urt_jax.generation.schedule import Rows
from urt_jax.generation.stops import StopTable
from urt_jax.models.kv_cache import Cache
from urt_jax.types import Array


class RowSettings(NamedTuple):
    """Settings of each response, all traced: changed values compile nothing. See ``Sampling`` for their meaning."""

    temperature_B: Float[Array, " B"]
    top_k_B: Int[Array, " B"]
    top_p_B: Float[Array, " B"]
    min_p_B: Float[Array, " B"]
    repetition_penalty_B: Float[Array, " B"]
    max_new_tokens_B: Int[Array, " B"]  # at most the slots of the response cache
    stop_B: Int[Array, " B"]  # state in which the row enters the automaton of stop strings

    def of_rows(self, index: Int[Array, " rows"]) -> "RowSettings":
        """Return the settings of these rows."""
        return RowSettings(*(jnp.asarray(part)[index] for part in self))


def row_settings(
    sampling: Sequence[Sampling], max_new_tokens: Sequence[int], enters: Callable[[tuple[str, ...]], int]
) -> RowSettings:
    """Return the settings of rows as arrays; ``enters`` maps stop strings to the automaton's first state."""

    def column(name: str, kind: Any) -> np.ndarray:
        return np.array([getattr(row, name) for row in sampling], kind)

    return RowSettings(
        temperature_B=column("temperature", np.float32),
        top_k_B=column("top_k", np.int32),
        top_p_B=column("top_p", np.float32),
        min_p_B=column("min_p", np.float32),
        repetition_penalty_B=column("repetition_penalty", np.float32),
        max_new_tokens_B=np.array(max_new_tokens, np.int32),
        stop_B=np.array([enters(row.stop) for row in sampling], np.int32),
    )


class Vocabulary(NamedTuple):
    """The token ids with a special role in sampling, and the stop strings."""

    end_ids: Int[Array, " ends"]  # each of these ends a response and is kept in it
    suppressed_V: Bool[Array, " V"]  # True = never sampled: picture placeholders, special tokens, unused ids
    pad_id: Int[Array, ""]
    stops: StopTable  # stop strings, which end a response before an end id does


class DecodeState(NamedTuple):
    """The state of the decoding loop; X counts all responses, B the rows that decode them, G the groups of rows."""

    step: Int[Array, ""]
    rows: Rows
    hidden_BD: Float[Array, "B D"]  # of the last token, from which the next is chosen
    position_B: Int[Array, " B"] | None  # of a response's first token; None if responses wait: read from the prompts
    stop_B: Int[Array, " B"]  # state of the stop strings' automaton
    seen_BV: Bool[Array, "B V"] | None  # ids in prompt or response; None if no row is penalised
    prompt: Cache  # of each group's question
    prompt_mask_GS: Bool[Array, "G S"]
    past: Cache  # of the responses, as a ring: all rows write slot ``step % U``
    tokens_XU: Int[Array, "X U"]
    length_X: Int[Array, " X"]  # tokens so far
    logp_XU: Float[Array, "X U"]
    ended_X: Bool[Array, " X"]  # by an end id or a stop string; the others reached the token limit


class Decoding(NamedTuple):
    """A batch in decoding, as a value: the random draws and settings of its X responses, and the loop's state."""

    draws_XU: Float[Array, "X U"]
    settings: RowSettings
    state: DecodeState


class Completions(NamedTuple):
    """Sampled responses, ``B = Q * R`` question-major rows; padding follows the end token."""

    tokens_BU: Int[Array, "B U"]
    mask_BU: Bool[Array, "B U"]  # True up to and including the end token
    logp_BU: Float[Array, "B U"]  # under the full tempered distribution, 0 where masked
    ended_B: Bool[Array, " B"]  # by an end id or a stop string; the others reached the token limit
    steps: Int[Array, ""]  # number of passes of the rows through the model
