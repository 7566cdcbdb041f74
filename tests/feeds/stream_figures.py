"""Print how fast the records of a large table come and what memory that takes; run as a process of its own."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from urt_jax.data.settings import PoolData
from urt_jax.feeds.records import question_source

BATCH, READ = 64, 20_000


def own(fields: Any) -> dict[str, Any]:
    """Read a row with two columns of pictures."""
    return {"caption": fields["caption"], "images": [fields["image_0"], fields["image_1"]], "label": fields["label"]}


def own_memory() -> int:
    """Return this process's memory that no file backs, in bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def main(path: str) -> None:
    """Print the figures as JSON."""
    memory, started = own_memory(), time.process_time()
    source = question_source(PoolData(path=path, layout=f"{__spec__.name}:own"), seed=0)
    batch = [source.get(n) for n in range(BATCH)]
    first = time.process_time() - started
    sizes = {len(item.source.read()) for example in batch for item in example.candidates}  # type: ignore[union-attr]
    started = time.process_time()
    for n in range(BATCH, BATCH + READ):
        source.get(n)
    rate = READ / (time.process_time() - started)
    figures = {
        "seconds to the first batch": round(first, 2), "records a second": round(rate),
        "MB grown": round((own_memory() - memory) / 1e6, 1), "bytes of a picture": sorted(sizes),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
