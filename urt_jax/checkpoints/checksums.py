"""A checksum of an array's bits that is the same on every mesh, computed on the array's devices."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PRIMES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)  # odd, so that a product loses no bit


def checksums(leaves: Mapping[str, Any]) -> dict[str, int]:
    """Return 32 bits for each array: the sum, modulo 2^32, of its elements' bits times odd weights by index.

    An integer sum does not depend on the order, so the sum over the shards is the sum over the whole array. A change
    of any one element changes it. The call blocks until the arrays are computed.
    """
    groups: dict[Any, dict[str, Any]] = {}  # one program for all leaves on the same devices
    for path, leaf in leaves.items():
        devices = leaf.sharding.device_set if isinstance(leaf, jax.Array) else None
        groups.setdefault(devices and frozenset(devices), {})[path] = leaf
    found = jax.device_get([_sums(group) for group in groups.values()])
    return {path: int(value) for sums in found for path, value in sums.items()}


@jax.jit
def _sums(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: _sum_of_bits(jnp.asarray(leaf)) for path, leaf in leaves.items()}


def _sum_of_bits(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == bool:
        leaf = leaf.astype(np.uint8)
    size = np.dtype(leaf.dtype).itemsize
    bits = jax.lax.bitcast_convert_type(leaf, {1: jnp.uint8, 2: jnp.uint16}.get(size, jnp.uint32)).astype(jnp.uint32)
    weight = jnp.ones(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        weight += 2 * place * np.uint32(_PRIMES[axis % len(_PRIMES)])
    return jnp.sum(bits * weight, dtype=jnp.uint32)
