"""The settings of a mesh: how many devices lie along each axis. It imports no jax, since configs are read before it."""

from dataclasses import asdict, dataclass

from urt_jax.settings import Problems


@dataclass(frozen=True)
class MeshAxes:
    """Devices along each axis; -1 (one axis at most) takes what the others leave."""

    data: int = -1  # whole copies of the state
    fsdp: int = 1  # parameters and optimizer split, gathered layer by layer
    tensor: int = 1  # matrix products split
    sequence: int = 1  # tokens of a row split, for long prompts: 1, 2, 4 or 8, as rows are padded to multiples of 8

    def problems(self) -> Problems:
        """Yield what is wrong between the knobs."""
        sizes = asdict(self)
        if self.sequence not in (1, 2, 4, 8):
            yield "sequence", f"{self.sequence} does not divide rows, which are padded to multiples of 8 tokens"
        for name, size in sizes.items():
            if name != "sequence" and size < 1 and size != -1:
                yield name, f"{size} is no number of devices; give 1 or more, or -1 for the rest"
        if list(sizes.values()).count(-1) > 1:
            yield "data", f"only one axis can be -1, got {sizes}"
