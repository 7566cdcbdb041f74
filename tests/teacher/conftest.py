"""What the tests of the teacher share: retries without long pauses."""

import pytest

from urt_jax.teacher import retries


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for 10 ms after a first attempt."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.01)
