# shellcheck shell=bash
# Sourced by the scripts beside it: make (or reuse) the virtual environment $VENV with everything the project needs.
#
#   PYTHON     interpreter to use (default: the first of python3.11, python3, python3.12, ... that is 3.11 or newer)
#   VENV       where the environment goes (default: .venv in the checkout)
#   JAX_EXTRA  the accelerator that jax is installed for: cuda12 or tpu (default: none, the CPU)
#
# Where the interpreter already has a jax with an accelerator behind it, that jax is used and never replaced.

VENV="${VENV:-.venv}"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The version of a jax that runs on an accelerator, nothing where there is none.
accelerator_jax() {
  "$1" - 2>/dev/null <<'PY'
import jax
if jax.default_backend() != "cpu":
    print(jax.__version__)
PY
}

choose_python() {
  local candidate found=""
  for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14}; do
    new_enough "$candidate" || continue
    found="${found:-$candidate}"
    if [ -n "$(accelerator_jax "$candidate")" ]; then found="$candidate"; break; fi
  done
  if [ -z "$found" ]; then
    echo "error: no Python 3.11 or newer with the venv module found; install one or set PYTHON=/path/to/python" >&2
    return 2
  fi
  echo "$found"
}

make_environment() {
  local python jax_version stamp
  stamp="$(cat requirements.txt pyproject.toml | cksum)${JAX_EXTRA:+ $JAX_EXTRA}"
  if [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/complete" 2>/dev/null)" = "$stamp" ]; then return 0; fi
  python="$(choose_python)" || return
  jax_version="$(accelerator_jax "$python" || true)"
  echo "making $VENV with $("$python" --version)"
  if [ -n "$jax_version" ]; then
    echo "keeping jax $jax_version of $python and its accelerator"
    "$python" -m venv --clear --system-site-packages "$VENV" || return
    "$VENV/bin/python" -m pip install -q -e '.[test]' "jax==$jax_version" "jaxlib==$jax_version" || return
  else
    "$python" -m venv --clear "$VENV" || return
    "$VENV/bin/python" -m pip install -q -r requirements.txt ${JAX_EXTRA:+"jax[$JAX_EXTRA]"} || return
  fi
  echo "$stamp" > "$VENV/complete"
}

make_environment
