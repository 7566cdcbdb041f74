"""The train state: trainable and frozen parameters are two trees, so frozen ones have no gradients or moments."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jaxtyping import Int

from urt_jax.errors import BadInputError

Params = dict[str, Any]


class TrainState(NamedTuple):
    """The values that a training step changes, and the frozen weights, which it only reads."""

    step: Int[Array, ""]
    trainable: Params
    frozen: Params
    opt_state: Any

    @property
    def params(self) -> Params:
        """The whole parameter tree."""
        return merge_params(self.trainable, self.frozen)


def split_params(params: Params, patterns: Sequence[str]) -> tuple[Params, Params]:
    """Split a tree into (trainable, frozen): a leaf is trainable if any pattern matches its ``a/b/c`` path.

    Raises:
        BadInputError: a pattern matches no leaf; a misspelt one would otherwise silently train less.
    """
    flat = flatten_dict(params, sep="/")
    idle = [pattern for pattern in patterns if not any(re.search(pattern, path) for path in flat)]
    if idle:
        roots = sorted({path.split("/")[0] for path in flat})
        raise BadInputError(f"trainable patterns {idle} match no parameter; the paths start with {', '.join(roots)}")
    chosen = {path for path in flat if any(re.search(pattern, path) for pattern in patterns)}
    return (
        unflatten_dict({path: leaf for path, leaf in flat.items() if path in chosen}, sep="/"),
        unflatten_dict({path: leaf for path, leaf in flat.items() if path not in chosen}, sep="/"),
    )


def merge_params(trainable: Params, frozen: Params) -> Params:
    """Return the whole tree of the two that ``split_params`` returned."""
    return unflatten_dict({**flatten_dict(trainable), **flatten_dict(frozen)})


def init_state(params: Params, optimizer: optax.GradientTransformation, patterns: Sequence[str]) -> TrainState:
    """Return the state of step 0; moments are allocated for the trainable tree only."""
    trainable, frozen = split_params(params, patterns)
    return TrainState(jnp.int32(0), trainable, frozen, optimizer.init(trainable))
