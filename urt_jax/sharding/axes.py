"""The settings of a mesh: the devices along each axis. It imports no jax: configs are read before jax starts."""

from dataclasses import asdict, dataclass

from urt_jax.settings import Problems


@dataclass(frozen=True)
class MeshAxes:
    """Devices along each axis; one axis may be -1, which takes all remaining devices."""

    data: int = -1  # replicas of the state
    fsdp: int = 1  # shards of parameters and optimizer, gathered layer by layer
    tensor: int = 1  # shards of matrix products
    sequence: int = 1  # shards of a row's tokens, for long prompts: 1, 2, 4 or 8 (rows are padded to multiples of 8)

    def problems(self) -> Problems:
        """Yield the knobs that are invalid or in conflict, each with its message."""
        sizes = asdict(self)
        if self.sequence not in (1, 2, 4, 8):
            yield "sequence", f"{self.sequence} does not divide rows, which are padded to multiples of 8 tokens"
        for name, size in sizes.items():
            if name != "sequence" and size < 1 and size != -1:
                yield name, f"{size} is not a number of devices; give 1 or more, or -1 for the rest"
        if list(sizes.values()).count(-1) > 1:
            yield "data", f"only one axis can be -1, got {sizes}"
