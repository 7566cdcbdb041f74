"""What every vision tower returns."""

from typing import NamedTuple

from jax import Array
from jaxtyping import Float


class VisionFeatures(NamedTuple):
    """Features of all merged patches, row ``i * M + m`` for merged patch m of frame i, ``E = I * M``."""

    merged_ED: Float[Array, "E D"]
    deep_KED: Float[Array, "K E D"] | None = None  # added after the decoder's first K layers (DeepStack)
    newline_D: Float[Array, " D"] | None = None  # stands at the end of a line of tiles
