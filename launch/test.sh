#!/usr/bin/env bash
# All tests. Further arguments go to pytest, e.g.  bash launch/test.sh tests/losses -k advantage
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh

# Parity with transformers is tested on torch 2.13.0, and only a build without CUDA is wanted: it is installed where
# that is what pip would take; elsewhere those tests skip and say so.
torch_is_cpu_only() {
  "$VENV/bin/python" -m pip install -q --dry-run --report - torch==2.13.0 2>/dev/null | "$VENV/bin/python" -c '
import json, sys
names = {item["metadata"]["name"].lower() for item in json.load(sys.stdin)["install"]}
sys.exit(any(name.startswith(("nvidia", "cuda", "triton")) for name in names))' 2>/dev/null
}
if ! "$VENV/bin/python" -c 'import torch' 2>/dev/null; then
  if torch_is_cpu_only; then
    "$VENV/bin/python" -m pip install -q torch==2.13.0
  else
    echo "torch 2.13.0 has no CPU-only build here: parity tests will be skipped"
  fi
fi
# All of them run in a process a core, at most four: each compiles its own programs. A file stays in one process, and
# none takes the place of one that crashed: pytest-xdist 3.8 can then wait for ever (its issue 1378).
[ $# -gt 0 ] || set -- -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
exec "$VENV/bin/python" -m pytest "$@"
