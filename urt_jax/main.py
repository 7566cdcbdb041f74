"""The command line of all stages.

``python -m urt_jax.main --config configs/<stage>.py[:preset] [--workdir DIR] [--config.key=value]``:

With ``--distributed=auto`` or ``--distributed=HOST:PORT,COUNT,NUMBER`` it is one of several processes of a run: all are
started with the same arguments, share --workdir, and compute on their own devices.

1. Load the config file and fill in every default, so that any knob can be overridden by name.
2. Apply the overrides, check everything, open the run folder. No device is used before this, and jax is imported only
   to find the other processes.
3. A finished run prints its table again; otherwise the stage runs, or resumes.

Exit codes: 0 done, 2 bad input or a full disk, 75 saved after a preemption notice (call again to resume), 1 any other
error.
"""

import argparse
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from ml_collections import ConfigDict

from urt_jax.config import StageConfig, as_json, resolve, with_defaults
from urt_jax.config.binding import plain
from urt_jax.config.describe import describe
from urt_jax.config.overrides import override
from urt_jax.errors import BadInputError, shown, unknown_choice
from urt_jax.files.json_text import well_formed
from urt_jax.files.redaction import redacted
from urt_jax.runs import processes
from urt_jax.runs.compile_cache import keep_programs_by_environment
from urt_jax.runs.disk import disk_trouble
from urt_jax.runs.ownership import release
from urt_jax.runs.preemption import EXIT_PREEMPTED, Preempted, leaving_on_notice
from urt_jax.runs.run_folder import finished

EXIT_BAD_INPUT = 2
ALONE = ("ablation", "bench", "data", "export", "plan", "study")  # stages of one process

# These silence third-party advice that a user of this program cannot act on.
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInputError(f"{message}\n{self.format_usage().rstrip()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage from its command-line arguments and return the exit code.

    A failed process of several exits here, because it must notify the others before it exits.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    keep_programs_by_environment()
    try:
        code, told = _run(list(sys.argv[1:] if argv is None else argv)), ""
    except BadInputError as error:
        code, told = EXIT_BAD_INPUT, f"error: {error}"
    except Preempted as notice:
        code, told = EXIT_PREEMPTED, f"preempted: {notice}; call again with the same arguments to resume"
    except Exception as error:
        trouble = disk_trouble(error)
        if trouble is None and processes.count() == 1:
            raise
        code = 1 if trouble is None else EXIT_BAD_INPUT
        told = traceback.format_exc() if trouble is None else f"error: {trouble}"
    finally:
        release()
    told = redacted(told)
    if code and processes.count() > 1:
        sys.stdout.flush()
        processes.leave(code, told)
    if told:
        print(told, file=sys.stderr)
    return code


def _print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception as Python does, with secrets redacted."""
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _run(argv: list[str]) -> int:
    """Run the stage of these arguments, or print its help, as the only process or one of several."""
    if (listed := help_on_config(argv)) is not None:
        with suppress(BrokenPipeError):  # from a closed pager
            print(redacted(listed), flush=True)
        return 0
    config = read_arguments(argv)
    where = _distributed().parse_known_args(argv)[0].distributed
    if where is not None:
        _join(where, config.stage)
    if finished(config.workdir, as_json(config)) is not None:
        print(f"{config.workdir} is finished; give another --workdir to run again")
    else:
        with leaving_on_notice():
            importlib.import_module(f"urt_jax.stages.{config.stage}").run(config)
    processes.disconnect()
    return 0


def _join(where: str, stage: str) -> None:
    """Connect to the other processes, and silence all processes but the first.

    Raises:
        BadInputError: the processes are not found, or the stage runs in one process only.
    """
    try:
        processes.connect(where)
    except processes.ProcessesError as error:
        raise BadInputError(str(error)) from error
    if processes.count() > 1 and stage in ALONE:
        raise BadInputError(f"stage {stage!r} runs in one process; leave --distributed out and start one")
    if not processes.is_first():
        os.environ["TQDM_DISABLE"] = "1"
        logging.disable(logging.WARNING)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def help_on_config(argv: Sequence[str]) -> str | None:
    """Return the table of knobs of the config file; None unless both ``--config`` and ``--help`` are given."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("-h", "--help", action="store_true")
    known, _ = parser.parse_known_args(list(argv))
    if not known.help or known.config is None:
        return None
    path, _, preset = known.config.partition(":")
    return describe(with_defaults(load_config(Path(path), preset)))


def read_arguments(argv: Sequence[str]) -> StageConfig:
    """Return the checked settings of the command line.

    Raises:
        BadInputError: a missing or broken config file, an unknown preset or knob, or an invalid value.
    """
    for argument in argv:
        if well_formed(argument) != argument or "\0" in argument:
            raise BadInputError(f"argument {shown(argument)} holds bytes that are not UTF-8 text; type it again")
    parser = _Parser(
        prog="python -m urt_jax.main",
        allow_abbrev=False,
        parents=[_distributed()],
        epilog="any knob: --config.<knob>=<value>; --config FILE --help lists them",
    )
    parser.add_argument("--config", required=True, metavar="FILE[:PRESET]", help="e.g. configs/grpo.py")
    parser.add_argument("--workdir", help="run folder, default runs/<config>; called again, the run in it resumes")
    known, overrides = parser.parse_known_args(list(argv))
    path, _, preset = known.config.partition(":")
    config = with_defaults(load_config(Path(path), preset))
    usual = f"runs/{Path(path).stem}" + (f"-{preset}" if preset else "")
    config["workdir"] = known.workdir or config["workdir"] or usual
    return resolve(override(config, overrides))


def _distributed() -> argparse.ArgumentParser:
    """Return the parser of ``--distributed``."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--distributed",
        metavar="auto|HOST:PORT,COUNT,NUMBER",
        help="run as one of several processes; the value says how they find each other",
    )
    return parser


def load_config(path: Path, preset: str = "") -> ConfigDict:
    """Return the config that ``get_config(preset)`` of a config file returns.

    Raises:
        BadInputError: the file does not exist, fails to run, or has no such preset.
    """
    try:
        there = path.is_file()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise BadInputError(f"config file {shown(str(path), 200)} cannot be read ({told}); check the path") from None
    if not there:
        beside = sorted(str(item) for item in path.parent.glob("*.py")) if path.parent.is_dir() else []
        nothing = f"{shown(str(path.parent), 200)} holds no config files"
        hint = unknown_choice(str(path), beside) if beside else nothing
        raise BadInputError(f"config file {shown(str(path), 200)} does not exist: {hint}")
    spec = importlib.util.spec_from_file_location(f"urt_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadInputError(f"config file {path} is not a Python file; give one with a get_config(preset) function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(preset)
        if isinstance(config, ConfigDict):
            plain(config)  # a reference to itself, or to a value that is never set, fails here
    except (Exception, SystemExit, GeneratorExit) as error:
        asked = f"preset {shown(preset, 200)} of config file {path}" if preset else f"config file {path}"
        told = traceback.format_exception_only(error)[-1].strip()
        raise BadInputError(f"{asked} cannot be used: {told}") from error
    if not isinstance(config, ConfigDict):
        raise BadInputError(f"config file {path}: get_config returned a {type(config).__name__}, needs a ConfigDict")
    return config


if __name__ == "__main__":
    sys.excepthook = _print_redacted
    sys.exit(main())
