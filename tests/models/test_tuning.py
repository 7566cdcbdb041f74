"""The record of what differs by device, and that a stage's programs take their shape from it."""

import pytest

from tests.tiny import MODEL
from urt_jax.models.tuning import ACCELERATOR, CPU, tuning


def test_this_device_has_the_record_of_a_cpu() -> None:
    assert tuning() is CPU


def test_what_a_model_gets_is_told_in_words() -> None:
    assert CPU.told(4) == (
        "4 layers unrolled; 8 or 32 responses at a time per core; updates in pieces of 1,600 tokens or more; masks and "
        "rotations looped"
    )
    assert ACCELERATOR.told(28) == "28 layers scanned"


@pytest.mark.parametrize("limit", [1, 8])
def test_a_module_unrolls_by_the_record(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace
    from pathlib import Path

    from tests.tiny import PROCESSOR, tiny_params
    from urt_jax.checkpoints import model_folder

    monkeypatch.setattr(model_folder, "tuning", lambda: replace(CPU, unrolled_layers=limit))
    layers = MODEL.config.decoder.layers
    module = model_folder.LoadedModel(PROCESSOR, tiny_params(), Path()).module()
    assert module.unroll == (layers if layers <= limit else 1)
