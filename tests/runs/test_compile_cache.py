"""Compiled programs are kept where nobody has said otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = """
import jax
{before}
from urt_jax.runs.compile_cache import keep_programs
jax.jit(lambda x: x + 1)(1.0)
keep_programs()
jax.jit(lambda x: x + 2)(1.0)
print(jax.config.jax_compilation_cache_dir)
"""


def kept_in(home: Path, *, before: str = "", **environment: str) -> str:
    """Return where a fresh process keeps its programs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    env = inherited | {"HOME": str(home), "JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-c", KEPT.format(before=before)]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_they_are_kept_below_the_home_and_of_any_length(tmp_path: Path) -> None:
    at_once = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    folder = tmp_path / ".cache" / "urt_jax" / "compiled"
    assert kept_in(tmp_path, **at_once) == str(folder)
    assert any(folder.iterdir()), "what is compiled after the call is written, though jax had compiled before it"


@pytest.mark.parametrize(
    ("before", "environment", "told"),
    [
        ("", {"JAX_COMPILATION_CACHE_DIR": "{mine}"}, "{mine}"),
        ("", {"JAX_COMPILATION_CACHE_DIR": ""}, ""),
        ("jax.config.update('jax_compilation_cache_dir', '{mine}')", {}, "{mine}"),
        ("jax.config.update('jax_enable_compilation_cache', False)", {}, "None"),
    ],
)
def test_what_the_user_said_stays(tmp_path: Path, before: str, environment: dict[str, str], told: str) -> None:
    mine = str(tmp_path / "mine")
    given = {name: value.replace("{mine}", mine) for name, value in environment.items()}
    found = kept_in(tmp_path, before=before.replace("{mine}", mine), **given)
    assert found == told.replace("{mine}", mine)
    assert not (tmp_path / ".cache").exists()
