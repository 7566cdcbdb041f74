"""The base stage as a story: tokenizer, layout and first weights from nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.stages.coin_judge import SHAPE
from tests.stages.story import OPTIMIZER, assert_called_again, assert_complete, run_in_process, weights, write_config
from urt_jax.judge.reward_model import RewardModel
from urt_jax.scenes import DRILLS, PHRASES
from urt_jax.stages import base


def test_a_judge_is_made_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base, "CORPUS_RECORDS", 30)
    monkeypatch.setattr(base, "HELD_OUT_DRILLS", 4)
    everything = {"image_gen": 1.0, "video_gen": 1.0, "image_und": 1.0, "video_und": 1.0}
    config = write_config(
        tmp_path / "base.py",
        "base",
        shape=vars(SHAPE),
        data=[{"path": "drills", "count": 16}, {"path": "scenes", "count": 16, "tasks": everything}],
        model={"init": "random", "trainable": [".*"]},
        steps=2,
        batch_size=8,
        optimizer=OPTIMIZER,
        lengths={"max_prompt_tokens": 160, "max_new_tokens": 96},
        save_every=1,
    )
    folder = run_in_process(config, tmp_path / "run")
    loaded = assert_complete(folder, steps=2, figures={"loss", "grad_norm"})
    assert loaded.processor.config.decoder.width == SHAPE.width
    assert loaded.processor.config.decoder.tied_head
    tokenizer = loaded.processor.tokenizer
    assert len(tokenizer) == loaded.processor.config.decoder.vocab_size <= SHAPE.vocab_size
    pieces = [tokenizer(phrase.rstrip(" "), add_special_tokens=False)["input_ids"] for phrase in PHRASES]
    assert {len(piece) for piece in pieces} == {1}
    assert not any(name.endswith(".safetensors") for name in (path.name for path in (folder / "seed").iterdir()))
    stored = weights(folder / "model")
    moved = [name for name, tensor in stored.items() if "norm" in name and not np.all(tensor == 1.0)]
    assert any("visual" in name for name in moved), "all parameters are trained, the vision tower too"
    judge = RewardModel.load(str(folder))
    picture = np.zeros((56, 56, 3), np.uint8)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a red circle"}]}]
    logits = judge.logits(messages=chat, images=[picture])
    assert logits.shape[1] == len(tokenizer)
    assert np.isfinite(logits).all()
    result = json.loads((folder / "result.json").read_text())
    assert [row["held-out drill"] for row in result["drills"]] == list(DRILLS)
    assert all(row["all"] == 0 for row in result["drills"]), "two steps teach nothing"
    assert_called_again(config, folder, capsys, changed="--config.shape.width=64")
