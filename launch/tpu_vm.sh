#!/usr/bin/env bash
# A TPU VM, of one worker or a pod of many: ask for it, install, run a stage on all workers, watch it, give it back.
#
#   bash launch/tpu_vm.sh train --config configs/grpo.py    all of it; on exit code 75 or a preemption, again
#   bash launch/tpu_vm.sh create | install | state | tail | delete
#   bash launch/tpu_vm.sh run --config configs/grpo.py      start on all workers, then wait for the end
#
# The VM is left as it is at the end: delete it. DRY_RUN=1 prints the commands instead of running them.
set -euo pipefail

NAME="${NAME:-urt}"
ZONE="${ZONE:-us-east5-b}"            # the project is gcloud's own: gcloud config set project PROJECT
ACCELERATOR="${ACCELERATOR:-v6e-8}"   # type and size, as `gcloud compute tpus accelerator-types list` has them
RUNTIME="${RUNTIME:-v2-alpha-tpuv6e}" # image of the VM; belongs to the type
SPOT="${SPOT:-1}"                     # 1: cheaper, taken away at any moment; 0: kept
RUNS="${RUNS:-}"                      # NFS export for the run folders, server:/path; empty: each worker's own disk
DISTRIBUTED="${DISTRIBUTED---distributed=auto}" # how the processes find each other; empty: each runs alone
POLL="${POLL:-60}"                    # seconds between two looks

cd "$(dirname "$0")/.."
source launch/dry_run.sh

queued() { perform gcloud compute tpus queued-resources "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
on_workers() { perform gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }

state() { queued describe --format='value(state.state)'; }
gone() { case "$(state || true)" in FAILED | SUSPENDING | SUSPENDED) ;; *) return 1 ;; esac; }

create() {
  local options=(--node-id="$NAME" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME")
  [ "$SPOT" = 0 ] || options+=(--spot)
  queued create "${options[@]}"
  until_active
}

until_active() {
  local now
  if [ -n "${DRY_RUN:-}" ]; then state; return; fi
  while true; do
    now="$(state || true)"
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        echo "error: queued resource $NAME in $ZONE is $now; delete it and create it again" >&2
        return 1
        ;;
    esac
    echo "$(date +%T) $NAME is ${now:-not answering}" >&2
    sleep "$POLL"
  done
}

install() {
  local package
  package="$(mktemp -d)/urt_jax.tar.gz"
  perform tar -czf "$package" --exclude=./.git --exclude=./.venv --exclude='./.*_cache' --exclude=./runs . &&
    perform gcloud compute tpus tpu-vm scp "$package" "$NAME:urt_jax.tar.gz" --zone="$ZONE" --worker=all &&
    on_workers "rm -rf urt_jax && mkdir urt_jax && tar -xzf urt_jax.tar.gz -C urt_jax && RUNS=$(printf %q "$RUNS") bash urt_jax/launch/tpu_worker.sh install" || return
  rm -rf "$(dirname "$package")"
}

run() {
  local words
  # shellcheck disable=SC2086 # words of DISTRIBUTED are separate arguments
  words="$(printf ' %q' $DISTRIBUTED "$@")"
  on_workers "bash urt_jax/launch/tpu_worker.sh start$words" || return
  until_ended
}

# Return the exit code of the stage; 75 also when workers or the whole VM were lost.
until_ended() {
  local look="bash urt_jax/launch/tpu_worker.sh outcome" outcomes
  if [ -n "${DRY_RUN:-}" ]; then on_workers "$look"; return; fi
  while sleep "$POLL"; do
    if gone; then return 75; fi
    # Without an answer nothing is known: a passing fault, or a preemption that the state will show.
    outcomes="$(on_workers "$look" | sed -n 's/.*outcome: //p' | sort -u)" || continue
    case " $(echo "$outcomes" | tr '\n' ' ')" in
      " " | *" running "*) ;;
      *" lost "* | *" 75 "*) return 75 ;;
      *) return "$(echo "$outcomes" | sort -n | tail -n 1)" ;;
    esac
  done
}

train() {
  local code
  if [ "$SPOT" != 0 ] && [ -z "$RUNS" ]; then
    echo "error: a preempted VM takes its disk with it; set RUNS=server:/path (NFS) for the run folders, or SPOT=0" >&2
    return 2
  fi
  if [ -n "${DRY_RUN:-}" ]; then create; install; run "$@"; return; fi
  while true; do
    case "$(state 2>/dev/null || echo none)" in
      none) create ;;
      FAILED | SUSPENDING | SUSPENDED) delete; create ;;
      *)
        if ! until_active; then
          if gone; then continue; fi # it was taken away after its state was asked
          return 1
        fi
        ;;
    esac
    code=0
    { install && run "$@"; } || code=$?
    # A VM that is taken away while something runs on it makes that fail, with any code.
    [ "$code" -eq 75 ] || gone || return "$code"
    echo "$(date +%T) $NAME: stopped early (code $code); going on from the last checkpoint" >&2
  done
}

follow() { perform gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="${WORKER:-0}" --command='tail -n 50 -F urt.log'; }
delete() { queued delete --force --quiet; }

case "${1:-}" in
  tail) follow ;;
  train | create | install | run | state | delete) "$@" ;;
  *) echo "error: ${1:-nothing} is none of train, create, install, run, state, tail, delete" >&2; exit 2 ;;
esac
