"""Resampling of square learned grids, and the taps of bilinear interpolation."""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from urt_jax.ops.precision import wide
from urt_jax.types import Array


def bilinear_rows(
    table_ND: Float[Array, "N D"], positions_IP2: Int[Array, "I P 2"], mask_IP: Bool[Array, "I P"], *, side: int
) -> Float[Array, "I P D"]:
    """Return the rows of a ``side x side`` table stretched over each frame's grid, float32, 0 where masked.

    The corners of the frame align with the corners of the table; a frame's largest positions give its grid::

        table side 3, frame of 2 rows        row 0 -> table row 0,  row 1 -> table row 2
    """
    kind = wide(table_ND.dtype)
    count_I12 = jnp.max(jnp.where(mask_IP[..., None], positions_IP2, 0), axis=1, keepdims=True)
    place_IP2 = positions_IP2.astype(kind) * (side - 1) / jnp.maximum(count_I12, 1)
    low_IP2 = jnp.clip(jnp.floor(place_IP2).astype(jnp.int32), 0, side - 1)
    high_IP2 = jnp.minimum(low_IP2 + 1, side - 1)
    share_IP2 = place_IP2 - low_IP2
    total = jnp.zeros((*mask_IP.shape, table_ND.shape[-1]), kind)
    for row, row_weight in ((low_IP2[..., 0], 1 - share_IP2[..., 0]), (high_IP2[..., 0], share_IP2[..., 0])):
        for column, weight in ((low_IP2[..., 1], 1 - share_IP2[..., 1]), (high_IP2[..., 1], share_IP2[..., 1])):
            taken = table_ND[row * side + column].astype(kind)
            total = total + taken * (row_weight * weight)[..., None]
    return jnp.where(mask_IP[..., None], total, 0.0)
