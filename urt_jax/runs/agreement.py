"""Agreement between the processes of a training on the step at which all of them stop."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.sharding.shares import share_of


class Agreement:
    """Whether any process has raised a flag: the same answer on all processes, at most one call late, without waiting.

    All processes of the mesh must call it equally often, and in the same order among the mesh's other programs.
    """

    def __init__(self, mesh: Mesh | None) -> None:
        self._mesh = mesh if share_of(mesh).spans else None
        self._asked: jax.Array | None = None
        if self._mesh is not None:
            self._split = NamedSharding(self._mesh, P(self._mesh.axis_names))
            self._any = jax.jit(jnp.any, out_shardings=NamedSharding(self._mesh, P()))

    def found(self, up: bool) -> bool:
        """Return whether any process raised the flag at the previous call; with one process, at this call."""
        if self._mesh is None:
            return up
        flags = jax.make_array_from_callback((self._mesh.size,), self._split, lambda index: np.array([up]))
        asked, self._asked = self._asked, self._any(flags)
        return asked is not None and bool(asked)
