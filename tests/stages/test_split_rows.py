"""SFT and GRPO as a user runs them on a mesh that splits rows: the figures of the mesh that splits batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.story import LENGTHS, OPTIMIZER, SHORT, metric_lines, run_in_process, write_config

pytestmark = pytest.mark.slow
MESHES: dict[str, dict[str, int]] = {"batches": {"data": 8}, "rows": {"data": 2, "sequence": 4}}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"data": {"count": 16, "path": "drills"}, "batch_size": 8, "lengths": LENGTHS},
    "grpo": {
        "data": {"count": 8, "seed": 2},
        "eval_data": {"count": 4},
        "questions_per_step": 8,
        "responses_per_question": 4,
        "updates_per_rollout": 2,
        "kl_coef": 0.04,
        "lengths": SHORT,
    },
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_figures(stage: str, tmp_path: Path, coin_judge: Path) -> None:
    lines = {}
    for name, mesh in MESHES.items():
        settings = {"model": {"path": str(coin_judge)}, "steps": 2, "optimizer": OPTIMIZER, **STAGES[stage]}
        config = write_config(tmp_path / name / "config.py", stage, mesh=mesh, **settings)
        lines[name] = metric_lines(run_in_process(config, tmp_path / name / "run"))
    first = {name: found[0] for name, found in lines.items()}
    for key in ("loss", "grad_norm", *(("rewards/accuracy/mean", "entropy", "kl") if stage == "grpo" else ())):
        np.testing.assert_allclose(first["rows"][key], first["batches"][key], rtol=1e-4, atol=1e-6, err_msg=key)
    assert first["rows"]["grad_norm"] > 1e-3
    for found in lines.values():
        assert len(found) == 2
        assert all(line["skipped_updates"] == 0 for line in found)
