#!/usr/bin/env bash
# One worker of a TPU VM. tpu_vm.sh copies the checkout to ~/urt_jax there and calls this file over ssh:
#
#   install         the environment ~/urt-venv, and ~/urt-runs for the run folders (RUNS: the NFS export mounted there)
#   start ARGUMENTS the stage in the background, its output in ~/urt.log
#   outcome         print "outcome: running", "outcome: <exit code>", or "outcome: lost" when it ended without one
set -euo pipefail

RUNS="${RUNS:-}"
export VENV="$HOME/urt-venv" JAX_EXTRA=tpu

cd "$(dirname "$0")/.."

running() { [ -f ~/urt.pid ] && kill -0 "$(cat ~/urt.pid)" 2>/dev/null; }

install() {
  mkdir -p ~/urt-runs
  ln -sfn ~/urt-runs runs
  if [ -n "$RUNS" ] && ! mountpoint -q ~/urt-runs; then
    command -v mount.nfs >/dev/null || sudo apt-get install -qy nfs-common
    sudo mount -t nfs "$RUNS" ~/urt-runs
  fi
  # The images of TPU VMs have an older Python than the project needs; uv brings one.
  python3 -m pip install -q --user uv
  python3 -m uv python install -q 3.11
  PYTHON="$(python3 -m uv python find 3.11)"
  export PYTHON
  source launch/environment.sh
}

start() {
  if running; then
    echo "error: $(hostname) still runs a stage (process $(cat ~/urt.pid)); wait for it, or end it there" >&2
    exit 2
  fi
  rm -f ~/urt.code
  # The single quotes are meant: the inner shell has the arguments and writes the exit code.
  # shellcheck disable=SC2016
  setsid nohup bash -c '"$VENV/bin/python" -m urt_jax.main "$@"; echo $? > ~/urt.code' start "$@" \
    >> ~/urt.log 2>&1 < /dev/null &
  echo $! > ~/urt.pid
}

outcome() {
  if running; then echo "outcome: running"; else echo "outcome: $(cat ~/urt.code 2>/dev/null || echo lost)"; fi
}

case "${1:-}" in
  install | start | outcome) "$@" ;;
  *) echo "error: ${1:-nothing} is none of install, start, outcome" >&2; exit 2 ;;
esac
