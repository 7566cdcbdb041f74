"""Progress for a log: plain lines, now and then, and one at the end."""

import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from urt_jax import progress as progress_module
from urt_jax.progress import LINE_S, Lines, each, progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(monkeypatch: pytest.MonkeyPatch, clock: Clock, **settings: Any) -> tuple[Lines, StringIO]:
    told = StringIO()
    monkeypatch.setattr(Lines, "clock", staticmethod(clock))
    return Lines(file=told, mininterval=0, miniters=1, **settings), told


def test_a_line_every_half_minute_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    bar, told = lines(monkeypatch, clock, total=1000, desc="sft", unit="step")
    bar.set_postfix({"loss": "0.43"}, refresh=False)
    for _ in range(650):
        clock.now += 0.1
        bar.update(1)
    assert len(told.getvalue().splitlines()) == 65 // LINE_S
    bar.close()
    bar.close()
    written = told.getvalue()
    assert "\r" not in written
    assert written.splitlines()[-1].startswith("sft 650/1,000 step in ")
    assert written.splitlines()[-1].endswith(", loss=0.43")
    assert len(written.splitlines()) == 3


def test_short_work_writes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, told = lines(monkeypatch, Clock(), desc="plan", unit="case", iterable=range(3))
    assert list(bar) == [0, 1, 2]
    assert len(told.getvalue().splitlines()) == 1
    assert told.getvalue().startswith("plan 3/3 case in ")


def test_a_pipe_gets_lines_and_silence_where_asked(tmp_path: Path) -> None:
    code = "from urt_jax.progress import each\nfor _ in each(range(5), title='a', unit='b'): pass"
    for environment, count in (({}, 1), ({"TQDM_DISABLE": "1"}, 0)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "", **environment},
            cwd=Path(__file__).parents[1],
        )
        assert len(done.stderr.splitlines()) == count
        assert "\r" not in done.stderr


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress_module.sys, "stderr", Terminal())
    bar = progress(total=3, title="a", unit="b")
    assert not isinstance(bar, Lines)
    bar.close()
    assert list(each([1, 2], title="a", unit="b")) == [1, 2]
