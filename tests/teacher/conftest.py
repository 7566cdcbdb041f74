"""Teachers that stumble are asked again at once."""

import pytest

from urt_jax.teacher import client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.01)
