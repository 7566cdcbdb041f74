"""The device mesh: ``data`` (replicas), ``fsdp`` (state), ``sequence`` (tokens of a row), ``tensor`` (products)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "sequence", "tensor")  # the last axes communicate most, so their devices are neighbours


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, sequence: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Make the mesh over all devices; an axis of -1 takes the devices that the others leave.

    The axes are ``Auto``: the compiler shards what no annotation fixes (``jax.make_mesh`` alone defaults to Explicit).
    A mesh of several CPU devices turns off the process's cache of compiled programs: a program with collectives that
    jaxlib 0.10.2 reads back from disk runs them in another order on each device, so that they wait for each other.

    Raises:
        ValueError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, sequence, tensor]
    if -1 in sizes:
        fixed = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices) or min(sizes) < 1:
        raise ValueError(
            f"a mesh of data={data} x fsdp={fsdp} x sequence={sequence} x tensor={tensor} does not fit {len(devices)} "
            "devices; their product must be the number of devices (-1 for one axis takes the rest)"
        )
    if len(devices) > 1 and devices[0].platform == "cpu":
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # jax looks at the setting once
    kinds = (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(tuple(sizes), AXES, axis_types=kinds, devices=devices)
    except NotImplementedError:  # a mesh axis that is part of one axis of a TPU's torus, such as 4 of 8 x 8 chips
        return Mesh(create_device_mesh(sizes, devices, allow_split_physical_axes=True), AXES, axis_types=kinds)


def compute_dtype(given: Any) -> Any:
    """Return the dtype of the computation; "auto" is bfloat16 on devices with fast bfloat16, else float32."""
    if not (isinstance(given, str) and given == "auto"):
        return np.dtype(given)
    device = jax.devices()[0]
    fast_bfloat16 = device.platform == "tpu" or float(getattr(device, "compute_capability", 0) or 0) >= 8
    return np.dtype("bfloat16" if fast_bfloat16 else "float32")
