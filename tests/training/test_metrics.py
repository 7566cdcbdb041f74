"""Metrics: written flat, cut on resume, read back."""

import json
import math
import time
from pathlib import Path

import jax.numpy as jnp
import pytest

from urt_jax.errors import BadInputError
from urt_jax.training.metrics import MetricsWriter, read_metrics


def write_steps(folder: Path, steps: range, *, resume_step: int = -1) -> None:
    with MetricsWriter(folder, resume_step=resume_step) as writer:
        for step in steps:
            writer.write(step, {"loss": jnp.asarray(step / 2), "rewards/format/mean": 1})


def test_lines_are_flat_and_tensorboard_gets_them_too(tmp_path: Path) -> None:
    write_steps(tmp_path, range(3))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[1] == {"step": 1, "loss": 0.5, "rewards/format/mean": 1.0}
    assert read_metrics(tmp_path) == lines
    (events,) = (tmp_path / "tb").iterdir()
    assert b"rewards/format/mean" in events.read_bytes()


def test_a_clock_that_is_set_back_overwrites_no_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    write_steps(tmp_path, range(3))
    (first,) = (tmp_path / "tb").iterdir()
    kept = first.read_bytes()
    write_steps(tmp_path, range(3, 5), resume_step=2)
    assert len(list((tmp_path / "tb").iterdir())) == 2
    assert first.read_bytes() == kept


def test_resuming_cuts_the_steps_that_run_again_and_a_torn_line(tmp_path: Path) -> None:
    write_steps(tmp_path, range(6))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    write_steps(tmp_path, range(4, 8), resume_step=3)
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(8))


def test_reading_passes_over_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2')
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_without_a_checkpoint_the_run_starts_anew(tmp_path: Path) -> None:
    write_steps(tmp_path, range(4))
    write_steps(tmp_path, range(2))
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1]


def test_figures_that_are_not_finite_stay_valid_json(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"kl": math.nan, "loss": math.inf})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "kl": None, "loss": None}
    assert math.isnan(read_metrics(tmp_path)[0]["kl"])


def test_an_inactive_writer_writes_nothing(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "run", active=False) as writer:
        writer.write(1, {"loss": 1.0})
    assert not (tmp_path / "run").exists()
    assert read_metrics(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"step": 2, "loss": "x"}', "loss is 'x'; needed a number"),
        (b'{"step": 2, "loss": [1]}', "loss is [1]; needed a number"),
        (b'{"step": null}', "step is missing; needed a whole number"),
        (b'{"loss": 1.0}', "step is missing"),
        (b'{"step": -1}', "step is -1; needed a whole number"),
        (b'{"step": 1e400}', "step is inf"),
        (b'{"step": true}', "step is True"),
        (b"[2]", "[2] where a JSON object is needed"),
        (b"7", "7 where a JSON object is needed"),
        (b'{"step": 2', "not JSON"),
        (b'{"step": 2, "l\xffss": 1}', "not UTF-8: byte 14 is 0xff"),
        (b'{"a": ' * 3000, "nested deeper than 100 levels"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_cut(tmp_path: Path, line: bytes, told: str) -> None:
    content = b'{"step": 1, "loss": 0.5}\n' + line + b'\n{"step": 3, "loss": 0.2}\n'
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    for call in (read_metrics, lambda folder: MetricsWriter(folder, resume_step=2)):
        with pytest.raises(BadInputError) as caught:
            call(tmp_path)
        assert str(caught.value).startswith(f"{path} line 2: {told}")
    assert path.read_bytes() == content
