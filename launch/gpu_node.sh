#!/usr/bin/env bash
# One GPU node: make the environment, run one stage on all its GPUs, and again as long as it ends with exit code 75.
#
#   bash launch/gpu_node.sh --config configs/grpo.py
#
# A preemption notice (SIGTERM) to this script is passed on; the stage saves, and the script ends with 75 too: the same
# call, here or on the node that comes next, goes on from there. DRY_RUN=1 prints the commands instead of running them.
set -euo pipefail

export JAX_EXTRA="${JAX_EXTRA-cuda12}" # what jax is installed for where no jax with a GPU is found; empty: the CPU

cd "$(dirname "$0")/.."
source launch/dry_run.sh
if [ -n "${DRY_RUN:-}" ]; then
  VENV="${VENV:-.venv}"
  perform source launch/environment.sh
else
  source launch/environment.sh
fi

command=("$VENV/bin/python" -m urt_jax.main "$@")
if [ -n "${DRY_RUN:-}" ]; then perform "${command[@]}"; exit; fi

noticed="" interrupted="" stage=""
# shellcheck disable=SC2329 # called by the trap
pass_on() {
  noticed=1 interrupted=1
  [ -z "$stage" ] || kill -TERM "$stage" 2>/dev/null || true
}
trap pass_on TERM

while [ -z "$noticed" ]; do
  "${command[@]}" &
  stage=$!
  # A trapped signal ends the wait, not the stage, which still has to save.
  interrupted=1
  while [ -n "$interrupted" ]; do
    interrupted="" code=0
    wait "$stage" || code=$?
  done
  [ "$code" -eq 75 ] || exit "$code"
  [ -n "$noticed" ] || echo "saved after a preemption notice to the stage; going on" >&2
done
exit 75
