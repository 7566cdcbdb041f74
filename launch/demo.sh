#!/usr/bin/env bash
# The whole recipe, small and real: from the shipped base judge to GRPO, a table and a report. Further arguments are
# passed on, e.g.  bash launch/demo.sh --workdir runs/second --config.seed=1
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
exec "$VENV/bin/python" -m urt_jax.main --config configs/pipeline.py "$@"
