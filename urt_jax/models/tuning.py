"""Choices of program structure by kind of device; they change the speed, and the results only by rounding.

One record holds all of these choices, and a stage prints it. ``CPU`` is for a CPU, ``ACCELERATOR`` for any other
device: all rows are decoded at once and updates are computed whole. Either scans the layers of deep decoders.
"""

from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class Tuning:
    """The choices that differ by device. 0 means no limit: everything at once."""

    unrolled_layers: int  # a decoder of at most so many layers is unrolled, a deeper one scanned
    few_rows: int = 0  # responses that a core decodes at a time if its caches hold the weights
    many_rows: int = 0  # responses at a time if the weights are read from memory, so that many rows share each read
    cached_weights: int = 0  # most bytes of weights that the caches hold from token to token
    piece_places: int = 0  # fewest token places of one piece of an update
    looped: bool = False  # a loop writes the values that all layers read (masks, rotations) once, see ``once``

    def told(self, layers: int) -> str:
        """Return a text of the choices for a decoder of ``layers`` layers."""
        parts = [f"{layers} layers {'unrolled' if layers <= self.unrolled_layers else 'scanned'}"]
        if self.few_rows:
            parts.append(f"{self.few_rows} or {self.many_rows} responses at a time per core")
        if self.piece_places:
            parts.append(f"updates in pieces of {self.piece_places:,} tokens or more")
        if self.looped:
            parts.append("masks and rotations looped")
        return "; ".join(parts)


# Measured on two CPU cores. Unrolling: the loop over layers took most of a step of urt-tiny. 8 rows of urt-tiny decoded
# 10 to 25 % faster than 32, and 32 rows of a model of 63 M parameters 20 % faster than 16. A GRPO update of urt-tiny
# took 1.12 s whole and 0.91 s in 8 pieces; models of 60 M parameters are equally fast in a few pieces.
CPU = Tuning(8, few_rows=8, many_rows=32, cached_weights=2**24, piece_places=1600, looped=True)
ACCELERATOR = Tuning(unrolled_layers=8)


def tuning() -> Tuning:
    """Return the record of the default device."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR
