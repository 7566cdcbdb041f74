"""Records of the grouped sampler: what is asked for, what the loop carries, what comes back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from urt_jax.generation.schedule import Rows, Schedule
from urt_jax.generation.stops import StopTable
from urt_jax.models.kv_cache import Cache, KeyValues, map_layers
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

    def of_rows(self, index: Int[Array, " rows"]) -> "SamplingSettings":
        """Return the settings of these rows."""
        return SamplingSettings(*(part[index] if part.ndim else part for part in map(jnp.asarray, self)))


class Vocabulary(NamedTuple):
    """What the sampler must know about token ids."""

    end_ids: Int[Array, " ends"]  # any of these ends a row and is kept
    suppressed_V: Bool[Array, " V"]  # True = never sampled: picture placeholders, special tokens, unused rows
    pad_id: Int[Array, ""]
    stops: StopTable  # which texts end a row before an end id does


class Asked(NamedTuple):
    """What is known of Q questions after the prefill."""

    cache: Cache
    mask_QS: Bool[Array, "Q S"]
    hidden_QD: Float[Array, "Q D"]  # of the last prompt token
    position_Q: Int[Array, " Q"]  # of the first new token
    seen_QV: Bool[Array, "Q V"] | None  # ids of the prompt; None where no row is penalised

    def part(self, first: Int[Array, ""], count: int) -> "Asked":
        """Return ``count`` questions from ``first`` on."""

        def cut(x: Array, axis: int = 0) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(x, first, count, axis)

        return Asked(
            map_layers(lambda layers: KeyValues(*(cut(x, x.ndim - 4) for x in layers)), self.cache),
            cut(self.mask_QS),
            cut(self.hidden_QD),
            cut(self.position_Q),
            None if self.seen_QV is None else cut(self.seen_QV),
        )

    def of_groups(self, rows: Rows, plan: Schedule) -> tuple[Cache, Bool[Array, "groups S"]]:
        """Return the prompt caches and masks that the groups of all parts read; each part looks at its own only."""
        index_PG = jnp.minimum(rows.question_PG, plan.questions - 1)

        def of_parts(x: Array, axis: int) -> jax.Array:
            apart = x.reshape(*x.shape[:axis], plan.parts, plan.questions, *x.shape[axis + 1 :])
            take = jax.vmap(lambda part, index: jnp.take(part, index, axis=axis), in_axes=(axis, 0), out_axes=axis)
            taken = jnp.asarray(take(apart, index_PG))
            return taken.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])

        cache = map_layers(lambda layers: KeyValues(*(of_parts(x, x.ndim - 4) for x in layers)), self.cache)
        return cache, of_parts(self.mask_QS, 0)

    def seen(self, question: Int[Array, " rows"]) -> Bool[Array, "rows V"] | None:
        """Return which ids the prompts of these rows hold."""
        return None if self.seen_QV is None else self.seen_QV[question]


class DecodeState(NamedTuple):
    """Carried through the decode loop; X counts all responses, B the rows that decode, G their groups."""

    step: Int[Array, ""]
    rows: Rows
    hidden_BD: Float[Array, "B D"]  # of the last token, from which the next is chosen
    stop_B: Int[Array, " B"]  # state of the stop strings' automaton
    seen_BV: Bool[Array, "B V"] | None  # ids in prompt or response; None where no row is penalised
    prompt: Cache  # of each group's question
    prompt_mask_GS: Bool[Array, "G S"]
    past: Cache  # a ring: all rows write slot ``step % U``
    tokens_XU: Int[Array, "X U"]
    length_X: Int[Array, " X"]  # tokens so far
    logp_XU: Float[Array, "X U"]
    ended_X: Bool[Array, " X"]  # ended by an end id or a stop string; the others ran to the limit


class Completions(NamedTuple):
    """Sampled responses, ``B = Q * R`` question-major rows; padding follows the end token."""

    tokens_BU: Int[Array, "B U"]
    mask_BU: Bool[Array, "B U"]  # True up to and with the end token
    logp_BU: Float[Array, "B U"]  # under the full tempered distribution, 0 where masked
    ended_B: Bool[Array, " B"]  # by an end id or a stop string; the others ran to the limit
    steps: Int[Array, ""]  # times the rows were run through the model
