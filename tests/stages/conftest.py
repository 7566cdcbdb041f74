"""The small judge all stories start from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.stages.coin_judge import SHAPE, save_coin_judge
from tests.stages.story import pairs
from urt_jax.data.sources import write_examples
from urt_jax.scenes import write_reasoning
from urt_jax.stages import base


@pytest.fixture(scope="session")
def coin_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a judge that answers by tossing a coin."""
    folder = tmp_path_factory.mktemp("coin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CORPUS_RECORDS", 30)
        base.write_empty_model(folder / "seed", SHAPE)
    save_coin_judge(folder / "seed", folder / "judge")
    return folder / "judge"


@pytest.fixture(scope="session")
def reasonings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of written reasonings to learn."""
    path = tmp_path_factory.mktemp("reasonings") / "cold_start.jsonl"
    rng = np.random.default_rng(0)
    write_examples(path, [replace(pair, response=write_reasoning(pair, rng)) for pair in pairs(12)])
    return path
