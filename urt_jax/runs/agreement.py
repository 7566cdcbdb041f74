"""Agreeing, in the middle of a training that no process may leave alone, on the step at which all of them leave."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.sharding.shares import share_of


class Agreement:
    """Whether a flag is up on any process: the same answer on all, at most one call late, without waiting for it.

    All processes of the mesh must call it, as often and in the same order as they run its other programs.
    """

    def __init__(self, mesh: Mesh | None) -> None:
        self._mesh = mesh if share_of(mesh).spans else None
        self._asked: jax.Array | None = None
        if self._mesh is not None:
            self._split = NamedSharding(self._mesh, P(self._mesh.axis_names))
            self._any = jax.jit(jnp.any, out_shardings=NamedSharding(self._mesh, P()))

    def found(self, up: bool) -> bool:
        """Return whether the flag was up anywhere at the call before; of one process, whether it is."""
        if self._mesh is None:
            return up
        flags = jax.make_array_from_callback((self._mesh.size,), self._split, lambda index: np.array([up]))
        asked, self._asked = self._asked, self._any(flags)
        return asked is not None and bool(asked)
