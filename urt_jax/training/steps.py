"""The pure training steps: ``(state, batch) -> (state, metrics)``; everything here is jitted by ``compile``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float

from urt_jax.losses.grpo import entropy_bonus, policy_loss
from urt_jax.losses.reductions import LossParts, add_term
from urt_jax.losses.sft import sft_loss
from urt_jax.models.vlm import VisionLanguageModel, run
from urt_jax.ops.logprobs import chosen_logps, reorder_columns
from urt_jax.sharding.activations import gather_columns, on_one_device, row_parts
from urt_jax.training.state import Params, TrainState, merge_params
from urt_jax.types import Array, Batch, PromptedRows

CHUNK = 1024  # tokens that a device's share of the head's product holds at a time
Metrics = dict[str, Any]  # scalars, or (sum, count) pairs before the step divides


class CompletionScores(NamedTuple):
    """Log-probability and entropy (nats) of each completion token under the full tempered distribution."""

    logp_BU: Float[Array, "B U"]
    entropy_BU: Float[Array, "B U"]


class GrpoBatch(NamedTuple):
    """A rollout made ready for the update: its prompts, once each, and their question-major completions.

    Groups without any advantage may be left out of the rows (B of them stay); their completion masks are then kept in
    ``idle_mask_XU``, since they count in the loss's denominator.
    """

    rows: PromptedRows
    advantage_B: Float[Array, " B"]
    old_logp_BU: Float[Array, "B U"]
    ref_logp_BU: Float[Array, "B U"]
    sampler_logp_BU: Float[Array, "B U"]
    idle_mask_XU: Bool[Array, "X U"]
    temperature: Float[Array, ""]


@dataclass(frozen=True)
class PolicyLoss:
    """Which policy loss and its constants, fixed for a run; see ``losses.grpo.policy_loss``."""

    kind: str
    clip_low: float
    clip_high: float
    kl_coef: float
    delta: float | None = None
    cispo_cap: float = 5.0
    sapo_temperature_pos: float = 1.0
    sapo_temperature_neg: float = 1.05
    kl_kind: str = "k3"
    importance_cap: float | None = None
    entropy_coef: float = 0.0  # weight of the mean token entropy, which is taken off the loss


def score_completions(
    model: VisionLanguageModel,
    params: Params,
    rows: PromptedRows,
    temperature: Float[Array, ""],
    suppressed_V: Bool[Array, " V"],
    *,
    entropy_gradient: bool = False,
) -> CompletionScores:
    """Score every completion token from the hidden state before it; each prompt is run once for all its completions.

    The head is applied to completion positions only and in chunks: ``[B*U, V]`` never exists. The entropy is detached
    unless ``entropy_gradient``.
    """
    prompts_QSD, hidden_BUD = run(model, params, rows, method="hidden_with_responses")
    responses = hidden_BUD.shape[0] // prompts_QSD.shape[0]
    last_BD = jnp.repeat(prompts_QSD[:, -1], responses, axis=0)
    before = jnp.concatenate([last_BD[:, None], hidden_BUD[:, :-1]], axis=1)
    head = gather_columns(run(model, params, method="head_weight").astype(model.dtype))
    logp, entropy = chosen_logps(
        before,
        head,
        jnp.asarray(rows.tokens_BU),
        temperature=temperature,
        chunk=CHUNK * row_parts(),
        suppress_V=suppressed_V,
        entropy_gradient=entropy_gradient,
        wanted=jnp.asarray(rows.mask_BU) if on_one_device() else None,
    )
    return CompletionScores(logp, entropy)


def scored_policy_loss(
    scores: CompletionScores, batch: GrpoBatch, loss: PolicyLoss, *, first_update: bool
) -> LossParts:
    """Return the parts of the policy loss of a scored batch, the entropy bonus in its sum.

    Without an entropy coefficient the entropy is a figure only. ``scores`` carry the gradient.

    Raises:
        ValueError: an entropy coefficient with rows left out; and as ``losses.grpo.policy_loss``.
    """
    mask_BU, left_out = jnp.asarray(batch.rows.mask_BU), batch.idle_mask_XU.shape[0]
    if loss.entropy_coef and left_out:
        raise ValueError(
            f"entropy_coef is {loss.entropy_coef} but {left_out} rows were left out (idle_mask_XU): rows without "
            "advantage still have an entropy gradient, keep them all"
        )
    total, denominator, metrics = policy_loss(
        loss.kind,
        logp_BT=scores.logp_BU,
        old_logp_BT=None if first_update else batch.old_logp_BU,
        ref_logp_BT=batch.ref_logp_BU if loss.kl_coef else None,
        sampler_logp_BT=batch.sampler_logp_BU,
        advantage_B=batch.advantage_B,
        mask_BT=mask_BU,
        clip_low=loss.clip_low,
        clip_high=loss.clip_high,
        delta=loss.delta,
        cispo_cap=loss.cispo_cap,
        sapo_temperature_pos=loss.sapo_temperature_pos,
        sapo_temperature_neg=loss.sapo_temperature_neg,
        kl_kind=loss.kl_kind,
        kl_coef=loss.kl_coef,
        importance_cap=loss.importance_cap,
        max_tokens=mask_BU.shape[1],
        idle_mask_XT=batch.idle_mask_XU,
    )
    bonus, tokens, figures = entropy_bonus(scores.entropy_BU, mask_BU)
    if loss.entropy_coef:
        total = add_term((total, denominator), (bonus, tokens), loss.entropy_coef)
    return total, denominator, {**metrics, **figures}


def sft_train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: VisionLanguageModel,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
    """Take one step of maximum likelihood on the response tokens, averaged over all of them in the batch."""

    def loss_fn(trainable: Params) -> tuple[Array, tuple[Array, Metrics]]:
        params = merge_params(trainable, state.frozen)
        hidden, _ = run(model, params, batch, method="hidden")
        head = gather_columns(run(model, params, method="head_weight").astype(model.dtype))
        targets = batch.tokens_BT if batch.targets_BT is None else batch.targets_BT
        # What the last place predicts is masked and not cut off, so that the places still divide by the devices.
        tokens = jnp.roll(jnp.asarray(targets), -1, axis=1)
        mask = jnp.roll(jnp.asarray(batch.loss_mask_BT), -1, axis=1).at[:, -1].set(False)
        skipping = on_one_device()
        if skipping:  # trained places first in each row: the head is left out where a chunk of columns has none
            order = jnp.argsort(~mask, axis=1, stable=True)
            tokens, mask = (jnp.take_along_axis(x, order, axis=1) for x in (tokens, mask))
            hidden = reorder_columns(hidden, order)
        wanted = mask if skipping else None
        logp, _ = chosen_logps(hidden, head, tokens, chunk=CHUNK * row_parts(), wanted=wanted)
        total, denominator, metrics = sft_loss(logp, mask)
        return total, (denominator, metrics)

    return _update(state, loss_fn, optimizer)


def grpo_train_step(
    state: TrainState,
    batch: GrpoBatch,
    suppressed_V: Bool[Array, " V"],
    *,
    model: VisionLanguageModel,
    optimizer: optax.GradientTransformation,
    loss: PolicyLoss,
    first_update: bool,
) -> tuple[TrainState, Metrics]:
    """Take one policy-gradient step on a scored rollout.

    In the ``first_update`` of a rollout the old policy is the current one: the ratio is 1 and its gradient is that of
    the log-probability, so ``old_logp_BU`` is not read and no second pass is needed. The reference is read only with
    a KL term.
    """

    def loss_fn(trainable: Params) -> tuple[Array, tuple[Array, Metrics]]:
        params = merge_params(trainable, state.frozen)
        scores = score_completions(
            model, params, batch.rows, batch.temperature, suppressed_V, entropy_gradient=bool(loss.entropy_coef)
        )
        total, denominator, metrics = scored_policy_loss(scores, batch, loss, first_update=first_update)
        return total, (denominator, metrics)

    return _update(state, loss_fn, optimizer)


def _update(
    state: TrainState,
    loss_fn: Callable[[Params], tuple[Array, tuple[Array, Any]]],
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
    """Differentiate the sum, divide once by the denominator, apply; pairs (sum, count) become means.

    Where the loss or the gradient is not finite, parameters and optimizer stay as they were and ``skipped_updates``
    is 1; the step counts on.
    """
    (total, (denominator, metrics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.trainable)
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
