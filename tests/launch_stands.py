"""Commands that stand for others in the tests of ``launch/``: they note how they are called and play their part."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A Python interpreter. Its virtual environments hold a copy of itself; each run of a stage takes the next line of
# $CODES/<name of the home folder>: an exit code, or something that happens to it.
PYTHON = """
case "$1 $2" in
  "-c import sys"*) exit 0 ;;
  "- ") exit 1 ;;
  "-m venv") target="${@: -1}"; mkdir -p "$target/bin"; cp "$0" "$target/bin/python" ;;
  "-m uv") [ "$4" != find ] || command -v python3 ;;
  "-m urt_jax.main")
    codes="$CODES/$(basename "$HOME")"
    code="$(head -n 1 "$codes")"
    sed -i 1d "$codes"
    case "$code" in
      taken) echo SUSPENDED > "$CODES/state"; exit 1 ;;
      vanish) kill -9 "$PPID" ;;
      wait) trap 'sleep 0.2; exit 75' TERM; touch "$HOME/waiting"; for _ in {1..1200}; do sleep 0.05; done ;;
      *) exit "$code" ;;
    esac ;;
esac
"""


class Stands:
    """A folder of stand-ins, first on ``PATH``; ``calls`` is what was called so far, a line a call."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.codes = folder, folder / "log", folder / "codes"
        self.commands = folder / "commands"
        self.commands.mkdir()
        self.codes.mkdir()
        self.home = folder / "node"
        self.home.mkdir()
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            "PATH": f"{self.commands}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "CODES": str(self.codes),
            "HOME": str(self.home),
            "PYTHON": str(self.commands / "python3"),
            "VENV": str(folder / "venv"),
        }
        self.add("python3", PYTHON)

    def add(self, name: str, body: str = "") -> None:
        """Add a command that notes its call and then runs ``body``, in bash."""
        path = self.commands / name
        path.write_text(f'#!/usr/bin/env bash\necho "$(basename "$0") $*" >> "$LOG"\n{body}\n')
        path.chmod(0o755)

    def ends(self, *codes: str, home: str = "node") -> None:
        """Say how the runs of a stage end, one after the other."""
        (self.codes / home).write_text("".join(f"{code}\n" for code in codes))

    def run(self, *command: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; one that hangs fails the test."""
        return subprocess.run(
            command, cwd=cwd, env={**self.env, **env}, capture_output=True, text=True, timeout=120, check=False
        )

    def calls(self, start: str = "") -> list[str]:
        """Return the calls that begin with ``start``."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(start)]
