"""Letting the processes of a mesh make their connections while all of them are there."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.runs import processes
from urt_jax.sharding.shares import share_of


@cache
def meet_on(mesh: Mesh) -> None:
    """Add up a number a device over each axis of a mesh and over all of it, where it spans several processes.

    Processes on CPUs (gloo) connect when they first compute together, and whoever comes first waits for 30 s. In the
    middle of a run, where one has found its programs compiled and another has not, that is too short.
    """
    if not share_of(mesh).spans:
        return
    processes.barrier()
    names = mesh.axis_names
    numbers = jax.make_array_from_callback(
        mesh.devices.shape, NamedSharding(mesh, P(*names)), lambda index: np.ones((1,) * len(names), np.float32)
    )
    for added in (*((place,) for place in range(len(names))), tuple(range(len(names)))):
        left = NamedSharding(mesh, P(*(name for place, name in enumerate(names) if place not in added)))
        jax.block_until_ready(jax.jit(jnp.sum, static_argnums=1, out_shardings=left)(numbers, added))
