"""Records of the grouped sampler: what is asked for, what the loop carries, what comes back."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from urt_jax.generation.schedule import Rows
from urt_jax.generation.stops import StopTable
from urt_jax.models.kv_cache import PromptCache, ResponseCache
from urt_jax.types import Array


class SamplingSettings(NamedTuple):
    """Sampling settings of each row, all traced: a change compiles nothing.

    Neutral values are temperature 1, top_k 0, top_p 1, min_p 0, repetition_penalty 1; temperature 0 takes the most
    likely token.
    A checkpoint's generation config is never read.
    """

    temperature_B: Float[Array, " B"]
    top_k_B: Int[Array, " B"]
    top_p_B: Float[Array, " B"]
    min_p_B: Float[Array, " B"]
    repetition_penalty_B: Float[Array, " B"]  # see ``token_choice.penalise_repetition``
    max_new_tokens: Int[Array, ""]  # at most the slots of the response cache


class Vocabulary(NamedTuple):
    """What the sampler must know about token ids."""

    end_ids: Int[Array, " ends"]  # any of these ends a row and is kept
    suppressed_V: Bool[Array, " V"]  # True = never sampled: picture placeholders, special tokens, unused rows
    pad_id: Int[Array, ""]
    stops: StopTable  # which texts end a row before an end id does


class DecodeState(NamedTuple):
    """Carried through the decode loop; X counts all responses, B the rows that decode, G their groups."""

    step: Int[Array, ""]
    rows: Rows
    hidden_BD: Float[Array, "B D"]  # of the last token, from which the next is chosen
    stop_B: Int[Array, " B"]  # state of the stop strings' automaton
    seen_BV: Bool[Array, "B V"] | None  # ids in prompt or response; None where no row is penalised
    prompt: PromptCache  # of each group's question
    prompt_mask_GS: Bool[Array, "G S"]
    cache: ResponseCache  # a ring: all rows write slot ``step % U``
    tokens_XU: Int[Array, "X U"]
    mask_XU: Bool[Array, "X U"]
    logp_XU: Float[Array, "X U"]


class Completions(NamedTuple):
    """Sampled responses, ``B = Q * R`` question-major rows; padding follows the end token."""

    tokens_BU: Int[Array, "B U"]
    mask_BU: Bool[Array, "B U"]  # True up to and with the end token
    logp_BU: Float[Array, "B U"]  # under the full tempered distribution, 0 where masked
    steps: Int[Array, ""]  # times the rows were run through the model
