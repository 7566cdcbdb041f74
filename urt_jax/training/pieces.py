"""Micro-batches: a step computes its rows piece by piece, with the same gradient and one piece's activations at a time.

Pieces take rows by stride (of n pieces, piece k has rows k, k + n, k + 2n, ...), so on a mesh every device computes
only rows that it holds. The tower runs once for all pieces.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp

from urt_jax.models.tuning import tuning
from urt_jax.models.vlm import VisionLanguageModel, run
from urt_jax.sharding.activations import on_one_device
from urt_jax.training.state import Params, TrainState, merge_params
from urt_jax.types import Array, GroupChange, VisionFeatures, VisionInput


@runtime_checkable
class Grouped(Protocol):
    """A record of rows in groups of one size, question-major: ``Batch``, ``PromptedRows`` or ``GrpoBatch``."""

    @property
    def group_size(self) -> int:
        """Number of rows that must stay in one piece."""
        ...

    @property
    def groups(self) -> int:
        """Number of groups."""
        ...

    @property
    def places(self) -> int:
        """Number of token places, padding included."""
        ...

    def map_groups(self, change: GroupChange) -> Any:
        """Return the record with ``change`` applied to every array that has these rows."""
        ...


Rows = TypeVar("Rows", bound=Grouped)


def default_pieces(rows: Grouped) -> int:
    """Return the fastest number of pieces on this device: 1, or the most of at least ``Tuning.piece_places`` places."""
    least = tuning().piece_places
    if not least or not on_one_device():
        return 1
    groups = rows.groups
    return max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or rows.places >= n * least))


def piece_of(rows: Rows, number: jax.Array, pieces: int) -> Rows:
    """Return piece ``number`` of ``pieces``: its groups, with all frames.

    Raises:
        ValueError: the groups do not divide evenly into the pieces.
    """

    def dealt(x: Array, axis: int, size: int) -> jax.Array:
        before, groups, after = x.shape[:axis], x.shape[axis] // size, x.shape[axis + 1 :]
        if groups % pieces:
            raise ValueError(f"micro_batches is {pieces}, which does not divide {groups} rows (GRPO: questions)")
        parts = jnp.asarray(x).reshape(*before, groups // pieces, pieces, size, *after)
        piece = jax.lax.dynamic_index_in_dim(parts, number, axis + 1, keepdims=False)
        return piece.reshape(*before, groups // pieces * size, *after)

    return rows.map_groups(dealt)


def map_pieces(fn: Callable[[Rows], Any], rows: Rows, pieces: int | None) -> Any:
    """Return ``fn(rows)``, arrays with the rows on the first axis, computed piece by piece."""
    pieces = default_pieces(rows) if pieces is None else pieces
    if pieces == 1:
        return fn(rows)
    return _joined(jax.lax.map(lambda number: fn(piece_of(rows, number, pieces)), jnp.arange(pieces)), rows.group_size)


def gradient_in_pieces(
    loss_fn: Callable[[Params, Any, Rows], tuple[Array, Any]],
    state: TrainState,
    model: VisionLanguageModel,
    vision: VisionInput | VisionFeatures,
    rows: Rows,
    pieces: int | None,
) -> tuple[Params, Any]:
    """Return the gradient of ``sum over pieces of loss_fn(params, features, piece)[0]``, and all rows' second results.

    ``loss_fn`` takes the whole parameter tree and the features of all frames (None without frames). It returns a sum
    over the rows of its piece, and arrays with those rows on the first axis. If the tower is trained, the gradient
    flows to it through the features.

    Raises:
        ValueError: the rows do not divide evenly into the pieces; or the tower is trained, but the frames are given as
            features.
    """
    pieces = default_pieces(rows) if pieces is None else pieces

    def encoded(trainable: Params) -> Any:
        return run(model, merge_params(trainable, state.frozen), vision, method="features")

    def of_piece(inputs: tuple[Params, Any], piece: Rows) -> tuple[Array, Any]:
        trainable, features = inputs
        return loss_fn(merge_params(trainable, state.frozen), features, piece)

    if "vision" not in state.trainable:
        features = encoded(state.trainable)
        return _summed(lambda weights, piece: of_piece((weights, features), piece), state.trainable, rows, pieces)
    if isinstance(vision, VisionFeatures):
        raise ValueError("the tower is trained, but the batch holds encoded frames; give it the pictures")
    features, pull_back = jax.vjp(encoded, state.trainable)
    (direct, at_features), rest = _summed(of_piece, (state.trainable, features), rows, pieces)
    return jax.tree.map(jnp.add, direct, pull_back(at_features)[0]), rest


def _summed(loss_fn: Callable[[Any, Rows], tuple[Array, Any]], at: Any, rows: Rows, pieces: int) -> tuple[Any, Any]:
    gradient = jax.grad(loss_fn, has_aux=True)
    if pieces == 1:
        return gradient(at, rows)

    def add(total: Any, number: jax.Array) -> tuple[Any, Any]:
        part, rest = gradient(at, piece_of(rows, number, pieces))
        return jax.tree.map(jnp.add, total, part), rest

    total, rest = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, at), jnp.arange(pieces))
    return total, _joined(rest, rows.group_size)


def _joined(parts: Any, size: int) -> Any:
    """Return rows ``[pieces, rows, ...]`` as one axis in their original order."""

    def joined(x: jax.Array) -> jax.Array:
        pieces, rows, *after = x.shape
        return x.reshape(pieces, rows // size, size, *after).swapaxes(0, 1).reshape(pieces * rows, *after)

    return jax.tree.map(joined, parts)
