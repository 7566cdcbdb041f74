"""The run folder's own files: the settings of the run and its result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urt_jax.errors import BadInputError, shown
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import read_object
from urt_jax.files.redaction import redacted_values
from urt_jax.files.whole import remove_unfinished, write_whole
from urt_jax.runs import processes
from urt_jax.runs.disk import disk_trouble
from urt_jax.runs.ownership import own

_MISSING = object()  # a setting that one of two versions of the program does not have
SHOWN, LISTED = 120, 20  # characters per setting, and settings, in a message about differing settings
# Settings that may change between two calls of one run: its folder, its mesh and batching, its workers, what it keeps
# and logs, its limits on skipped records, and the teacher's limits.
_FREE = ("workdir", "mesh", "micro_batches", "workers", "keep", "max_skipped", "max_skipped_share",
         "token_budget", "concurrency", "retries", "timeout_s", "api_key_env")  # fmt: skip


def open_run(workdir: str | Path, config: Mapping[str, Any]) -> Path:
    """Make the run folder, or resume the run in it, and return its path.

    ``config`` is plain JSON (``config.as_json``). A new folder gets it as ``config.json``, without secrets such as the
    credentials of an address; those may change between two calls. The first process makes the folder for all.

    Raises:
        BadInputError: the folder holds a run of other settings (lists them), a run in progress in another process, or
            other files; it cannot be a folder; or the processes do not share it.
    """
    folder = Path(workdir)
    processes.of_first(lambda: _made_run(folder, _public(config)))
    if (folder / "config.json").exists():
        return folder
    raise BadInputError(
        f"process {processes.number()} does not find {workdir}, which process 0 has made; give a --workdir on a disk "
        "that all processes share"
    )


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without texts in the form of a secret, whatever the environment's own secrets are."""
    return redacted_values(config, known=())


def _made_run(folder: Path, config: Mapping[str, Any]) -> None:
    try:
        _open_run(folder, config)
    except (OSError, ValueError) as error:  # a name that is too long, is below a file, or has a NUL byte
        no_folder = isinstance(error, NotADirectoryError | FileExistsError)
        if isinstance(error, BadInputError) or (disk_trouble(error) is not None and not no_folder):
            raise
        told = getattr(error, "strerror", None) or error
        raise BadInputError(
            f"--workdir {shown(str(folder), 200)} cannot be a run folder ({told}); give another"
        ) from None


def _open_run(folder: Path, config: Mapping[str, Any]) -> None:
    path = folder / "config.json"
    if path.exists():
        if not (folder / "result.json").exists():  # a finished run is only read
            own(folder)
            remove_unfinished(folder)
        there = read_object(path, remedy="give another --workdir, or delete this folder and start anew")
        differing = list(_differences(_public(there), json.loads(json.dumps(config)), ""))
        if differing:
            more = f"\n  and {len(differing) - LISTED} more" if len(differing) > LISTED else ""
            raise BadInputError(
                f"{folder} holds a run of another config:\n  " + "\n  ".join(differing[:LISTED]) + f"{more}\n"
                "give the same settings to resume it, another --workdir to start a new run, or delete the folder"
            )
        return
    if (folder.exists() and not folder.is_dir()) or (
        folder.is_dir() and any(not item.name.startswith(".") for item in folder.iterdir())
    ):
        raise BadInputError(f"{folder} exists and is not a run folder (no config.json); give another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    own(folder)
    write_json(path, config)


def finished(workdir: str | Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Open a run (see ``open_run``); return its result after printing its table again, None if it is to be run.

    Raises:
        BadInputError: as ``open_run`` and ``read_result``.
    """
    result = read_result(open_run(workdir, config))
    if result is not None:
        print(result["table"])
    return result


def read_result(workdir: str | Path) -> dict[str, Any] | None:
    """Return the result of a finished run (its printed table is under "table"), None while it is not finished."""
    path = Path(workdir) / "result.json"
    return processes.of_first(lambda: _result(path) if path.exists() else None)


def _result(path: Path) -> dict[str, Any]:
    remedy = "delete it and call again: the stage resumes from the other files and writes it anew"
    found = read_object(path, remedy=remedy)
    Fields(found, str(path)).text("table")
    return found


def write_result(workdir: str | Path, table: str, **figures: Any) -> None:
    """Mark the run as finished: write ``result.json`` with the table to print and the figures behind it.

    The first process writes, and the others continue once it is written.
    """
    processes.of_first(lambda: write_json(Path(workdir) / "result.json", redacted_values({"table": table, **figures})))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", durable=True)


def _differences(there: Any, here: Any, where: str) -> Any:
    """Yield one line for each differing setting that may not change."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            if key not in _FREE:
                inner = f"{where}.{key}" if where else key
                yield from _differences(there.get(key, _MISSING), here.get(key, _MISSING), inner)
    elif there != here:
        yield f"{where[:200]}: {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    if value is _MISSING:
        return "no such setting"
    told = json.dumps(value)
    return told if len(told) <= SHOWN else f"{told[:SHOWN]}..."
