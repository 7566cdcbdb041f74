"""The pure training steps, ``(state, batch) -> (state, metrics)``; ``compile`` jits them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float

from urt_jax.losses.grpo import entropy_bonus, policy_denominator, policy_loss
from urt_jax.losses.policy import PolicyLoss
from urt_jax.losses.reductions import LossParts, add_term
from urt_jax.losses.sft import sft_loss
from urt_jax.models.vlm import VisionLanguageModel, run
from urt_jax.ops.logprobs import chosen_logps
from urt_jax.sharding.activations import (
    gather_columns,
    on_one_device,
    row_parts,
    rows_as_tokens,
    token_parts,
    tokens_as_rows,
)
from urt_jax.training.pieces import gradient_in_pieces, map_pieces
from urt_jax.training.state import Params, TrainState
from urt_jax.types import Array, Batch, GroupChange, PromptedRows, VisionFeatures

CHUNK = 1024  # tokens per device whose logits are held at a time
Metrics = dict[str, Any]  # scalars, or (sum, count) pairs before the step divides


class CompletionScores(NamedTuple):
    """Log-probability and entropy (nats) of each completion token under the full tempered distribution."""

    logp_BU: Float[Array, "B U"]
    entropy_BU: Float[Array, "B U"]


class GrpoBatch(NamedTuple):
    """The batch of a policy update: each prompt once, and the question-major completions.

    Groups whose advantages are 0 may be left out of the B rows. Their X completion masks are then kept in
    ``idle_mask_XU``, because their tokens count in the loss's denominator.
    """

    rows: PromptedRows
    advantage_B: Float[Array, " B"]
    old_logp_BU: Float[Array, "B U"]
    ref_logp_BU: Float[Array, "B U"]
    sampler_logp_BU: Float[Array, "B U"]
    idle_mask_XU: Bool[Array, "X U"]
    temperature: Float[Array, ""]

    @property
    def group_size(self) -> int:
        """Number of responses to each question (R)."""
        return self.rows.group_size

    @property
    def groups(self) -> int:
        """Number of questions in the rows."""
        return self.rows.groups

    @property
    def places(self) -> int:
        """Number of token places, padding included: each prompt counts once."""
        return self.rows.places

    def map_groups(self, change: GroupChange) -> "GrpoBatch":
        """Return the batch with ``change`` applied to all arrays but the frames and ``idle_mask_XU``."""
        size = self.group_size
        return self._replace(
            rows=self.rows.map_groups(change),
            advantage_B=change(self.advantage_B, 0, size),
            old_logp_BU=change(self.old_logp_BU, 0, size),
            ref_logp_BU=change(self.ref_logp_BU, 0, size),
            sampler_logp_BU=change(self.sampler_logp_BU, 0, size),
        )


def score_completions(
    model: VisionLanguageModel,
    params: Params,
    rows: PromptedRows,
    temperature: Float[Array, ""],
    suppressed_V: Bool[Array, " V"],
    *,
    features: VisionFeatures | None = None,
    entropy_gradient: bool = False,
) -> CompletionScores:
    """Score every completion token from the hidden state before it; each prompt runs once for all its completions.

    The head is applied to completion positions only and in chunks: ``[B*U, V]`` never exists. The entropy is detached
    unless ``entropy_gradient``. The frames are encoded unless ``features`` are given.
    """
    last_QD, hidden_BUD = run(model, params, rows, features, method="hidden_with_responses")
    last_BD = jnp.repeat(last_QD, rows.group_size, axis=0)
    before = jnp.concatenate([last_BD[:, None], hidden_BUD[:, :-1]], axis=1)
    head = gather_columns(run(model, params, method="head_weight").astype(model.dtype))
    logp, entropy = chosen_logps(
        tokens_as_rows(before),
        head,
        tokens_as_rows(jnp.asarray(rows.tokens_BU)),
        temperature=temperature,
        chunk=CHUNK * row_parts() * token_parts(),
        suppress_V=suppressed_V,
        entropy_gradient=entropy_gradient,
        wanted=jnp.asarray(rows.mask_BU) if on_one_device() else None,
    )
    return CompletionScores(rows_as_tokens(logp), rows_as_tokens(entropy))


def score_step(
    params: Params,
    rows: PromptedRows,
    temperature: Float[Array, ""],
    suppressed_V: Bool[Array, " V"],
    *,
    model: VisionLanguageModel,
    micro_batches: int | None = None,
) -> CompletionScores:
    """Score the completions of a rollout under another policy (the reference, or the one before the first update).

    The questions are computed in ``micro_batches`` pieces, one at a time.
    """
    features = run(model, params, rows.prompts.vision, method="features")

    def of_piece(piece: PromptedRows) -> CompletionScores:
        return score_completions(model, params, piece, temperature, suppressed_V, features=features)

    return map_pieces(of_piece, rows, micro_batches)


def scored_policy_loss(
    scores: CompletionScores,
    batch: GrpoBatch,
    loss: PolicyLoss,
    *,
    first_update: bool,
    max_tokens: int | None = None,
    whole: GrpoBatch | None = None,
) -> LossParts:
    """Return the parts of the policy loss of a scored batch; the sum includes the entropy bonus.

    Without an entropy coefficient the entropy is only a metric. ``max_tokens`` is the longest response allowed, by
    which "dr_grpo" divides; None = the width of the rows. The gradient flows through ``scores``. If the batch is a
    piece of a ``whole`` batch, the pieces' sums add up to the whole's; denominator and metrics are the piece's.

    Raises:
        ValueError: an entropy coefficient, but rows were left out; and as ``losses.grpo.policy_loss``.
    """
    mask_BU, left_out = jnp.asarray(batch.rows.mask_BU), batch.idle_mask_XU.shape[0]
    if loss.entropy_coef and left_out:
        raise ValueError(
            f"entropy_coef is {loss.entropy_coef} but {left_out} rows were left out (idle_mask_XU): rows without "
            "advantage still have an entropy gradient; keep them all"
        )
    total, denominator, metrics = policy_loss(
        loss,
        logp_BT=scores.logp_BU,
        old_logp_BT=None if first_update else batch.old_logp_BU,
        ref_logp_BT=batch.ref_logp_BU if loss.kl_coef else None,
        sampler_logp_BT=batch.sampler_logp_BU,
        advantage_B=batch.advantage_B,
        mask_BT=mask_BU,
        max_tokens=_longest(batch, max_tokens),
        idle_mask_XT=batch.idle_mask_XU,
    )
    bonus, tokens, figures = entropy_bonus(scores.entropy_BU, mask_BU)
    if loss.entropy_coef:
        if whole is not None:
            mask_YU = jnp.asarray(whole.rows.mask_BU)
            denominator = policy_denominator(loss, mask_YU, max_tokens=_longest(whole, max_tokens))
            tokens = jnp.sum(mask_YU, dtype=jnp.float32)
        total = add_term((total, denominator), (bonus, tokens), loss.entropy_coef)
    return total, denominator, {**metrics, **figures}


def _longest(batch: GrpoBatch, max_tokens: int | None) -> int:
    return batch.rows.mask_BU.shape[1] if max_tokens is None else max_tokens


def sft_train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: VisionLanguageModel,
    optimizer: optax.GradientTransformation,
    micro_batches: int | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one step of maximum likelihood on the response tokens, averaged over all of them in the batch.

    The head is applied only to the places before them (``Targets``). The rows are computed in ``micro_batches`` pieces
    (by default ``pieces.default_pieces``), one at a time; the result is that of the whole batch.

    Raises:
        ValueError: the batch has no targets, or its targets split a row into another number of parts than the mesh.
    """
    if batch.targets is None:
        raise ValueError("the batch has no targets; give one that `collate` built with responses")
    if (parts := batch.targets.mask_BZJ.shape[1]) != token_parts():
        raise ValueError(f"the batch's targets split a row into {parts} parts, the mesh into {token_parts()}")

    def loss_fn(params: Params, features: VisionFeatures | None, piece: Batch) -> tuple[Array, tuple[Array, Array]]:
        hidden = run(model, params, piece, features, method="hidden")
        head = gather_columns(run(model, params, method="head_weight").astype(model.dtype))
        assert piece.targets is not None
        rows, parts, count = piece.targets.mask_BZJ.shape
        places, tokens, mask = (tokens_as_rows(jnp.asarray(x).reshape(rows, parts * count)) for x in piece.targets)
        logp, _ = chosen_logps(
            jnp.take_along_axis(tokens_as_rows(hidden), places[..., None], axis=1),
            head,
            tokens,
            chunk=CHUNK * row_parts() * token_parts(),
            wanted=mask if on_one_device() else None,
        )
        return sft_loss(logp, mask)[0], (rows_as_tokens(logp), piece.targets.mask_BZJ.reshape(rows, -1))

    gradients, scored = gradient_in_pieces(loss_fn, state, model, batch.vision, batch, micro_batches)
    return _update(state, gradients, sft_loss(*scored), optimizer)


def grpo_train_step(
    state: TrainState,
    batch: GrpoBatch,
    suppressed_V: Bool[Array, " V"],
    *,
    model: VisionLanguageModel,
    optimizer: optax.GradientTransformation,
    loss: PolicyLoss,
    first_update: bool,
    max_tokens: int | None = None,
    micro_batches: int | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one policy-gradient step on a scored rollout.

    In the ``first_update`` of a rollout the old policy is the current one: the ratio is 1 and its gradient is that of
    the log-probability, so ``old_logp_BU`` is not read and no second pass is needed. ``ref_logp_BU`` is read only with
    a KL term. ``max_tokens`` is the longest response allowed (None: the width of the rows). The questions are computed
    in ``micro_batches`` pieces, one at a time; the result is that of the whole batch.
    """

    loss_of = partial(scored_policy_loss, loss=loss, first_update=first_update, max_tokens=max_tokens)

    def loss_fn(params: Params, features: VisionFeatures | None, piece: GrpoBatch) -> tuple[Array, CompletionScores]:
        scores = score_completions(
            model,
            params,
            piece.rows,
            piece.temperature,
            suppressed_V,
            features=features,
            entropy_gradient=bool(loss.entropy_coef),
        )
        return loss_of(scores, piece, whole=batch)[0], scores

    vision = batch.rows.prompts.vision
    gradients, scores = gradient_in_pieces(loss_fn, state, model, vision, batch, micro_batches)
    return _update(state, gradients, loss_of(scores, batch), optimizer)


def _update(
    state: TrainState, gradients: Params, parts: LossParts, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Metrics]:
    """Divide the gradient of the loss's sum by its denominator and apply it; pairs (sum, count) become means.

    If the loss or the gradient is not finite, parameters and optimizer stay unchanged and ``skipped_updates`` is 1; the
    step number increases all the same.
    """
    total, denominator, metrics = parts
    scale = 1.0 / jnp.maximum(denominator, 1.0)
    gradients = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    flat = {name: _mean(value) for name, value in metrics.items()}
    loss, norm = total * scale, optax.tree.norm(gradients)
    sound = jnp.isfinite(loss) & jnp.isfinite(norm)
    trainable, opt_state = jax.tree.map(
        lambda new, old: jnp.where(sound, new, old), (trainable, opt_state), (state.trainable, state.opt_state)
    )
    flat |= {"loss": loss, "grad_norm": norm, "skipped_updates": 1.0 - sound}
    return TrainState(state.step + 1, trainable, state.frozen, opt_state), flat


def _mean(value: Any) -> Array:
    if isinstance(value, tuple):
        total, count = value
        return total / jnp.maximum(count, 1)
    return value
