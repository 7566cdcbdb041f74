#!/usr/bin/env bash
# A stage on a TPU slice of a GKE cluster with the JobSet controller (https://jobset.sigs.k8s.io), by gke_jobset.yaml.
#
#   bash launch/gke.sh image                              build the image with docker and push it
#   bash launch/gke.sh nodes                              make the node pool of the slice, once
#   bash launch/gke.sh submit --config configs/grpo.py    show ARGUMENTS prints what is submitted
#   bash launch/gke.sh status | tail | delete             delete ends the run; its folder stays
#
# kubectl must point at the cluster. DRY_RUN=1 prints the commands instead of running them.
set -euo pipefail

NAME="${NAME:-urt}"
IMAGE="${IMAGE:-}"                           # where the image goes, e.g. REGION-docker.pkg.dev/PROJECT/REPOSITORY/urt
CLUSTER="${CLUSTER:-}"                       # of the node pool; LOCATION: its region or zone
LOCATION="${LOCATION:-}"
ACCELERATOR="${ACCELERATOR:-tpu-v6e-slice}"  # as in the node label cloud.google.com/gke-tpu-accelerator
MACHINE="${MACHINE:-ct6e-standard-4t}"       # belongs to the accelerator
TOPOLOGY="${TOPOLOGY:-4x4}"                  # of the slice, in chips
CHIPS_PER_HOST="${CHIPS_PER_HOST:-4}"        # belongs to the machine
SPOT="${SPOT:-1}"                            # 1: spot nodes, cheaper, taken away at any moment; 0: kept
CLAIM="${CLAIM:-urt-runs}"                   # PersistentVolumeClaim, ReadWriteMany, for the run folders
MAX_RESTARTS="${MAX_RESTARTS:-3}"            # after failures that are no preemption
DISTRIBUTED="${DISTRIBUTED---distributed=auto}" # how the processes find each other; empty: each runs alone

cd "$(dirname "$0")/.."
source launch/dry_run.sh

CHIPS=$((${TOPOLOGY//x/*}))
HOSTS=$((CHIPS / CHIPS_PER_HOST))
if [ $((HOSTS * CHIPS_PER_HOST)) -ne "$CHIPS" ]; then
  echo "error: TOPOLOGY=$TOPOLOGY has $CHIPS chips, no multiple of CHIPS_PER_HOST=$CHIPS_PER_HOST" >&2
  exit 2
fi

needs() {
  local name
  for name in "$@"; do
    [ -n "${!name}" ] || { echo "error: $name is not set; see the top of launch/gke.sh" >&2; exit 2; }
  done
}

# Print the manifest with every ${NAME} in it filled in.
show() {
  local manifest name word words=""
  needs IMAGE
  # shellcheck disable=SC2086 # words of DISTRIBUTED are separate arguments
  for word in $DISTRIBUTED "$@"; do
    word="${word//\\/\\\\}"
    words+="${words:+, }\"${word//\"/\\\"}\""
  done
  # shellcheck disable=SC2034 # read below, by name
  local ARGUMENTS="[$words]"
  manifest="$(if [ "$SPOT" = 0 ]; then grep -v '# SPOT=1 only$'; else cat; fi < launch/gke_jobset.yaml)"
  for name in NAME IMAGE ACCELERATOR TOPOLOGY CHIPS_PER_HOST HOSTS CLAIM MAX_RESTARTS ARGUMENTS; do
    manifest="${manifest//"\${$name}"/"${!name}"}"
  done
  echo "$manifest"
}

submit() {
  local manifest
  manifest="$(show "$@")"
  [ -z "${DRY_RUN:-}" ] || echo "$manifest"
  perform kubectl create -f - <<< "$manifest"
}

image() {
  needs IMAGE
  perform docker build --tag "$IMAGE" --file - . <<'DOCKERFILE'
FROM python:3.11-slim
WORKDIR /urt_jax
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt "jax[tpu]"
COPY configs configs
COPY urt_jax urt_jax
ENV PYTHONUNBUFFERED=1
DOCKERFILE
  perform docker push "$IMAGE"
}

nodes() {
  needs CLUSTER LOCATION
  local options=(--machine-type="$MACHINE" --tpu-topology="$TOPOLOGY" --num-nodes="$HOSTS")
  [ "$SPOT" = 0 ] || options+=(--spot)
  perform gcloud container node-pools create "$NAME" --cluster="$CLUSTER" --location="$LOCATION" "${options[@]}"
}

status() { perform kubectl get jobsets,pods -l "jobset.sigs.k8s.io/jobset-name=$NAME"; }
follow() { perform kubectl logs --follow --prefix --max-log-requests="$HOSTS" -l "jobset.sigs.k8s.io/jobset-name=$NAME"; }
delete() { perform kubectl delete jobset "$NAME"; }

case "${1:-}" in
  tail) follow ;;
  image | nodes | submit | show | status | delete) "$@" ;;
  *) echo "error: ${1:-nothing} is none of image, nodes, submit, show, status, tail, delete" >&2; exit 2 ;;
esac
