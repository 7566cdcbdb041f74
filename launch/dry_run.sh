# shellcheck shell=bash
# Sourced by the scripts that start something: with DRY_RUN=1 a command is printed, quoted for a shell, instead of run.

perform() {
  local word quote="'\\''" line=""
  if [ -z "${DRY_RUN:-}" ]; then "$@"; return; fi
  for word in "$@"; do
    case "$word" in
      "" | *[!A-Za-z0-9_./:=,@%+-]*) line+=" '${word//\'/$quote}'" ;;
      *) line+=" $word" ;;
    esac
  done
  echo "${line# }"
}
