"""How programs are shaped for the kind of device: the same results within rounding, at other speeds.

One record holds every such choice, and a stage prints it. A small model on a CPU takes the ways of the first record; a
model of more layers, or another device, those of the second: layers scanned, all rows decoded, updates whole.
"""

from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class Tuning:
    """What differs by device. 0 means no limit: everything at once."""

    unrolled_layers: int  # decoders of at most so many layers are unrolled; the others are scanned
    few_rows: int = 0  # responses that a core decodes at a time where its caches hold the weights
    many_rows: int = 0  # and where weights come from memory, so that many rows share reading them
    cached_weights: int = 0  # bytes of weights that the caches hold from token to token
    piece_places: int = 0  # token places of one piece of an update, at least
    looped: bool = False  # what all layers read (masks, rotations) is written once by a loop, see ``once``

    def told(self, layers: int) -> str:
        """Return what a decoder of so many layers gets, in words."""
        parts = [f"{layers} layers {'unrolled' if layers <= self.unrolled_layers else 'scanned'}"]
        if self.few_rows:
            parts.append(f"{self.few_rows} or {self.many_rows} responses at a time a core")
        if self.piece_places:
            parts.append(f"updates in pieces of {self.piece_places:,} tokens or more")
        if self.looped:
            parts.append("masks and rotations looped")
        return "; ".join(parts)


# Measured on two CPU cores. Unrolling: the loop over layers was most of a step of urt-tiny. 8 rows of urt-tiny decoded
# 10 to 25 % faster than 32, and 32 rows of a model of 63 M parameters 20 % faster than 16. A GRPO update of urt-tiny
# took 1.12 s whole and 0.91 s in 8 pieces; models of 60 M parameters are as fast in any few.
CPU = Tuning(8, few_rows=8, many_rows=32, cached_weights=2**24, piece_places=1600, looped=True)
ACCELERATOR = Tuning(unrolled_layers=8)


def tuning() -> Tuning:
    """Return the record of the default device."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR
