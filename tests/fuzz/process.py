"""Fuzz targets in a process under limits: ``python -m tests.fuzz.process TARGET|all SEED COUNT FOLDER``.

With COUNT 0 each target takes its own few examples, and what was once reported. The tests' hook that checks annotations
is not there: what users give is checked by the code itself.
"""

import os
import resource
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HELD_BYTES = 6 << 30  # of memory that the process may ask for in all


def main(name: str, number: int, count: int, folder: Path) -> int:
    """Fuzz one target or all; print what was found and return 1 where something must be mended."""
    import jax  # noqa: F401  (its own memory counts as there before)

    from tests.fuzz.faults import FAULTS
    from tests.fuzz.running import Found, run, scratch, take
    from tests.fuzz.targets import TARGETS

    resource.setrlimit(resource.RLIMIT_DATA, (HELD_BYTES, HELD_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(Path(__file__).parents[2])
    faults = 0
    with (folder / "current.txt").open("w+") as current:
        for one in TARGETS if name == "all" else [name]:
            target = TARGETS[one]
            reported = Found()
            target.prepare(scratch(folder / "case"))
            for case in () if count else FAULTS.get(one, ()):
                take(target, case, folder / "case", reported, current)
            found = run(target, scratch(folder / "case"), number=number, count=count or target.shares, current=current)
            found.add(reported)
            faults += len(found.faults)
            print(f"{one}, seed {number}: {found.told()}", flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
