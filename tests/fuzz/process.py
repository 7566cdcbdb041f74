"""Fuzz one target in a process under limits: ``python -m tests.fuzz.process TARGET SEED COUNT FOLDER``."""

import os
import resource
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HELD_BYTES = 6 << 30  # of memory that the process may ask for in all


def main(name: str, number: int, count: int, folder: Path) -> int:
    """Fuzz one target; print what was found and return 1 where something must be mended."""
    import jax  # noqa: F401  (its own memory counts as there before)

    from tests.fuzz.running import run, scratch
    from tests.fuzz.targets import TARGETS

    resource.setrlimit(resource.RLIMIT_DATA, (HELD_BYTES, HELD_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(Path(__file__).parents[2])
    with (folder / "current.txt").open("w+") as current:
        found = run(TARGETS[name], scratch(folder / "case"), number=number, count=count, current=current)
    print(f"{name}, seed {number}, {count} examples: {found.told()}", flush=True)
    return int(bool(found.faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
