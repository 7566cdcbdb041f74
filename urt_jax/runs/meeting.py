"""Connecting the processes of a mesh while all of them are ready."""

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
    """Run one collective over each axis of a mesh and over all of it, if it spans several processes.

    Processes on CPUs (gloo) connect at their first collective, where the first process waits for 30 s. Later in a run
    that is too short: one process may find its programs in the cache while another compiles them.
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
