"""What a user may give wrong, through the command line: a clear line, exit code 2, and nothing trained.

Tested elsewhere: unknown keys, values and files of a config (``test_main``, ``test_config``); the reader's other
messages (``data/test_sources``); a folder of another config that holds no run yet (``checkpoints/test_run_folder``).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.stages.coin_judge import WRITTEN
from tests.stages.story import SHORT, arguments, write_config
from urt_jax.main import main

GOOD = {
    "conversations": [{"from": "human", "value": "<image><image>Which?"}, {"from": "gpt", "value": WRITTEN[0]}],
    "images": ["1.png", "2.png"],
}
QUESTION = {"task": "image_gen", "problem": "<image><image>Which?", "images": ["1.png", "2.png"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two good pictures, a broken one and an empty one."""
    for number in (1, 2):
        Image.fromarray(np.full((56, 56, 3), 90 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    (tmp_path / "zero.png").write_bytes(b"")
    return tmp_path


def refused(capsys: Any, folder: Path, stage: str, judge: Path, *, records: list[Any] | None, **settings: Any) -> str:
    """Run a stage on records, check that it ends before any training, and return its message."""
    data = folder / "records.jsonl"
    if records is not None:
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        data.write_text("".join(line + "\n" for line in lines))
    values = {"data": {"path": str(data)}, "model": {"path": str(judge)}, "lengths": SHORT}
    config = write_config(folder / "config.py", stage, **(values | settings))
    assert main(arguments(config, folder / "run")) == 2
    assert not (folder / "run" / "checkpoints").exists() or not any((folder / "run" / "checkpoints").iterdir())
    assert not (folder / "run" / "metrics.jsonl").exists()
    assert not (folder / "run" / "model").exists()
    message = capsys.readouterr().err
    assert "error: " in message
    return " ".join(message.split())


STEPS = {"steps": 2, "optimizer": {"warmup_steps": 1}}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"conversations": [', "records.jsonl line 2: not JSON"),
        (GOOD | {"images": ["1.png", "3.png"]}, "line 2 (id records:2): media file"),
        (GOOD | {"images": ["1.png", "zero.png"]}, "zero.png is empty (0 bytes); fetch it again"),
        (GOOD | {"images": ["1.png", "cut.png"]}, "cut.png is not a readable picture"),
        (
            GOOD | {"images": ["1.png", "2.png", "1.png"]},
            "line 2 (id records:2): record records:2: more images than placeholders: 3",
        ),
        (
            GOOD
            | {
                "conversations": [
                    {"from": "human", "value": "<image><image>" + "why " * 200},
                    *GOOD["conversations"][1:],
                ]
            },
            "record records:2: the prompt has",
        ),
        (
            GOOD | {"conversations": [*GOOD["conversations"][:1], {"from": "gpt", "value": "so " * 40}]},
            "record records:2: its response has",
        ),
        (
            GOOD | {"conversations": GOOD["conversations"][:1]},
            "record records:2 has no response to learn; SFT records need a gpt / assistant turn",
        ),
    ],
    ids=["json", "missing", "zero", "cut", "placeholders", "prompt", "response", "untaught"],
)
def test_a_bad_training_record_is_named_before_the_first_step(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], record: Any, message: str
) -> None:
    told = refused(capsys, folder, "sft", coin_judge, records=[GOOD, record, GOOD], batch_size=8, **STEPS)
    assert message in told


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_is_broken_behind_its_header_is_named_once_whoever_decodes_it(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)).save(folder / "3.png")
    (folder / "torn.png").write_bytes((folder / "3.png").read_bytes()[:4000])
    record = GOOD | {"images": ["1.png", "torn.png"]}
    told = refused(
        capsys, folder, "sft", coin_judge, records=[GOOD, record] * 8, batch_size=8, workers=workers, **STEPS
    )
    assert told.count("error: record records:") == told.count("image 2: not a readable picture") == 1
    assert "Traceback" not in told


def test_a_broken_picture_far_down_a_long_file_is_named_before_the_first_step(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shapes are planned from a sample of a long run; its pictures must not fail in the middle of it."""
    records = [GOOD] * 4000 + [GOOD | {"images": ["1.png", "cut.png"]}]
    data = {"path": str(folder / "records.jsonl"), "max_skipped_share": 0.0}
    settings = {"batch_size": 8, "steps": 1000, "optimizer": {"warmup_steps": 1}, "data": data}
    told = refused(capsys, folder, "sft", coin_judge, records=records, **settings)
    assert "line 4001 (id records:4001): media file" in told
    assert "cut.png is not a readable picture" in told


@pytest.mark.parametrize("stage", ["reject", "grpo", "evaluate"])
def test_a_file_without_labels_is_refused_where_answers_are_checked(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    settings: dict[str, Any] = {} if stage == "evaluate" else {**STEPS, "model": {"path": str(coin_judge)}}
    if stage == "evaluate":
        settings = {"models": {"coin": str(coin_judge)}}
    (folder / "records.jsonl").write_text(json.dumps(QUESTION) + "\n")
    values = {"data": {"path": str(folder / "records.jsonl")}, "lengths": SHORT, **settings}
    if stage == "grpo":
        values["eval_data"] = values["data"]
    config = write_config(folder / "config.py", stage, **values)
    assert main(arguments(config, folder / "run")) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "records.jsonl holds no record with a label to compare an answer with" in told
    assert "no label and this stage needs one; give solution ('Image 1 is better')" in told


@pytest.mark.parametrize(
    ("stage", "key"),
    [("sft", "data"), ("reject", "data"), ("grpo", "data"), ("evaluate", "data")],
)
def test_every_stage_asks_in_the_wording_that_its_data_names(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], stage: str, key: str
) -> None:
    """A slot that does not exist shows that the wording was read and filled."""
    (folder / "mine.txt").write_text("which of [{captoin}]?")
    values: dict[str, Any] = {"data": {"count": 4}, "lengths": SHORT}
    if stage == "evaluate":
        values["models"] = {"coin": str(coin_judge)}
    else:
        values |= {"model": {"path": str(coin_judge)}, "batch_size": 8, **STEPS}
    if stage == "grpo":
        del values["batch_size"]
        values["eval_data"] = {"count": 2}
    values[key] = values[key] | {"template": str(folder / "mine.txt")}
    config = write_config(folder / "config.py", stage, **values)
    assert main(arguments(config, folder / "run")) == 2
    assert "mine.txt: unknown slot {captoin}" in capsys.readouterr().err
    samples = folder / "run" / "records" / "samples.jsonl"
    assert not samples.exists() or not samples.read_text(), "nothing was sampled in another wording"


@pytest.mark.parametrize("stage", ["reject", "grpo"])
def test_a_pool_of_broken_pictures_is_refused_with_the_reason(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    bad = QUESTION | {"images": ["1.png", "cut.png"], "solution": "Image 1 is better"}
    more: dict[str, Any] = {"eval_data": {"count": 2}} if stage == "grpo" else {}
    told = refused(capsys, folder, stage, coin_judge, records=[bad] * 4, **STEPS, **more)
    assert "holds no record with a label" in told
    assert "cut.png is not a readable picture" in told


def test_a_checkpoint_of_another_shape_is_refused(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder / "wider"
    shutil.copytree(coin_judge, other)
    stored = json.loads((other / "config.json").read_text())
    stored["text_config"]["intermediate_size"] = 96
    (other / "config.json").write_text(json.dumps(stored))
    (other / "checksums.json").unlink()
    told = refused(capsys, folder, "sft", other, records=[GOOD], **STEPS)
    assert "weights and config.json do not belong together" in told
    assert "model.layers.0.mlp.down_proj.weight in model.safetensors is (32, 64), config.json asks for (32, 96)" in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mesh": {"data": 3}, "batch_size": 3},
            "a mesh of data=3 x fsdp=1 x sequence=1 x tensor=1 does not fit 8 devices",
        ),
        ({"model": {"trainable": ("^decodr/",)}}, "trainable patterns ['^decodr/'] match no parameter"),
        ({"model": {"path": "urt-tinny"}}, "model 'urt-tinny': neither a shipped model"),
    ],
)
def test_values_that_only_the_stage_can_judge(
    folder: Path, coin_judge: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], message: str
) -> None:
    settings["model"] = {"path": str(coin_judge)} | settings.get("model", {})
    assert message in refused(capsys, folder, "sft", coin_judge, records=[GOOD], **STEPS, **settings)
