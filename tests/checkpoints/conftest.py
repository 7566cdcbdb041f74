"""What tests of damaged checkpoints share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def late_reads() -> Iterator[None]:
    """Collect what a failed restore leaves behind while its own test can still pass over it.

    tensorstore reports the other reads of a failed restore to an event loop that orbax has closed by then; collected
    later, they would be told of in whatever test runs next.
    """
    yield
    gc.collect()
