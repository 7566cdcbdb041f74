"""Rotary position embeddings: the multimodal form of the decoder and the 2-D form of the vision tower."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from urt_jax.ops.precision import wide


def inverse_frequencies(width: int, theta: float) -> Float[Array, " half"]:
    """Return ``theta ** (-2i / width)`` for ``i < width / 2``, float32 (RoFormer, arXiv 2104.09864, eq. 15)."""
    return 1.0 / (theta ** (jnp.arange(0, width, 2, dtype=jnp.float32) / width))


def mrope_angles(
    positions_3BT: Int[Array, "3 B T"],
    *,
    head_width: int,
    theta: float,
    section: tuple[int, ...],
    interleaved: bool = False,
) -> Float[Array, "B T half"]:
    """Return the rotation angles of M-RoPE, ``half = head_width / 2`` (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Each frequency is multiplied by one of three position rows (temporal, height, width); ``section`` counts the
    frequencies of each row. They are contiguous, or ``interleaved`` as in Qwen3-VL (arXiv 2511.21631)::

        frequencies  0 1 2 3 | 4 5 6 | 7 8 9      0 1 2 3 4 5 6 7 8 9
        position row    t        h       w        t h w t h w t h w t      section = (4, 3, 3)
    """
    frequencies = inverse_frequencies(head_width, theta)
    row_of_frequency = jnp.array(_dealt_rows(section) if interleaved else np.repeat(np.arange(3), section))
    positions = jnp.moveaxis(positions_3BT, 0, -1).astype(jnp.float32)  # [B, T, 3]
    return positions[..., row_of_frequency] * frequencies[None, None]


def _dealt_rows(section: tuple[int, ...]) -> np.ndarray:
    """Return each frequency's position row: height and width at every third frequency, temporal at all others."""
    rows = np.zeros(sum(section), np.int64)
    for row in (1, 2):
        rows[row : 3 * section[row] : 3] = row
    return rows


def grid_angles(positions_IP2: Int[Array, "I P 2"], *, head_width: int, theta: float) -> Float[Array, "I P half"]:
    """Return the rotation angles of the vision tower: the first half from a patch's row, the second from its column."""
    frequencies = inverse_frequencies(head_width // 2, theta)
    angles = positions_IP2[..., None].astype(jnp.float32) * frequencies[None, None, None]
    return angles.reshape(*positions_IP2.shape[:2], -1)


class Rotation(NamedTuple):
    """Cosines and sines of the rotation angles, float32."""

    cos: Float[Array, "B T half"]
    sin: Float[Array, "B T half"]


def rotation(angles: Float[Array, "B T half"]) -> Rotation:
    """Return the rotation by these angles."""
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x_BTNH: Float[Array, "B T N H"], turn: Rotation) -> Float[Array, "B T N H"]:
    """Rotate each pair ``(x[i], x[i + H/2])`` by its angle; computed in float32, returned in the dtype of ``x``."""
    cos, sin = turn.cos[:, :, None], turn.sin[:, :, None]
    first, second = jnp.split(x_BTNH.astype(wide(x_BTNH.dtype)), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTNH.dtype)
