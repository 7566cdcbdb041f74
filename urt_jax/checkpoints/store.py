"""Checkpoints on orbax: arrays and the data position saved together atomically, and checked when read."""

import dataclasses
import json
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from urt_jax.checkpoints.checksums import checksums
from urt_jax.errors import BadInputError, shown
from urt_jax.runs import processes

PyTree = Any
LONG_S = 10 * 365 * 86400  # longer than any jump of the clock
_log = logging.getLogger(__name__)


class DamagedError(Exception):
    """A checkpoint is readable but differs from what was saved."""


@dataclasses.dataclass(frozen=True)
class _Kept:
    """An orbax policy of which checkpoints to keep: the newest, and older multiples of ``every``, ``keep`` in all."""

    keep: int
    every: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Return for each checkpoint, oldest first, whether it is kept."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        regular = [step for step in steps[:-1] if step % self.every == 0]
        stay = {*steps[-1:], *regular[max(len(regular) - self.keep + 1, 0) :]}
        return [step in stay for step in steps]


class CheckpointStore:
    """Checkpoints ``<folder>/<step>/`` of one run; the newest ``keep`` are kept.

    A checkpoint between multiples of ``every``, saved at a preemption, is deleted at the next save and displaces none
    of them, so that an interrupted run ends with the same checkpoints as an uninterrupted one.

    The state's leaves are stored under their paths ("params.decoder.layers..."), which error messages use too. Saving
    copies the arrays off the devices before it returns and writes them in the background; a folder gets its final name
    only when it is complete. Close the store (or use it in a ``with``) to wait for the last one. A checksum of each
    array is stored and compared on loading.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2, every: int = 1) -> None:
        self.folder = Path(folder).resolve()
        self._kept = _Kept(keep, every)
        self._manager = self._open()

    def save(self, step: int, tree: PyTree, extra: dict[str, Any]) -> None:
        """Save the state and ``extra``, plain JSON (data position, counters), as one checkpoint."""
        leaves = _by_path(tree)
        beside = {"step": int(step), "extra": extra, "sums": checksums(leaves), "extra_sum": _text_sum(extra)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(leaves), extra=ocp.args.JsonSave(beside))
        self._manager.save(int(step), args=items)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def restore_latest(self, abstract_tree: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Return (step, state, extra) of the newest readable checkpoint, or None if there is no checkpoint.

        ``abstract_tree`` holds arrays or ``jax.ShapeDtypeStruct``; leaves are restored in its shapes, dtypes and, if
        given, shardings. A damaged checkpoint is renamed to ``damaged-<step>`` and the one before it is used.

        Raises:
            BadInputError: the checkpoint is of another model, or none of the checkpoints can be read.
        """
        self._manager.wait_until_finished()
        damage: list[str] = []
        for step in reversed(processes.of_first(self.steps)):
            found, told = None, ""
            try:
                stored = self._stored_leaves(step)
                self._check_leaves(step, stored, _by_path(abstract_tree))
                found = self._restore(step, abstract_tree)
            except BadInputError:
                raise
            except Exception as error:  # orbax, tensorstore and json each raise their own types for a damaged file
                told = str(error).splitlines()[0] if str(error) else type(error).__name__
            told = next(filter(None, processes.gather(told)), "")  # if one process cannot read it, none uses it
            if found is None or told:
                damage.append(f"step {step}: {told}")
                _log.warning("checkpoint %s/%d cannot be read, going back to the one before", self.folder, step)
                continue
            if damage:
                self._set_aside([later for later in self.steps() if later > step])
            return step, *found
        if damage:
            raise BadInputError(
                f"no checkpoint in {self.folder} can be read ({'; '.join(damage)}); delete the folder to start anew"
            )
        return None

    def close(self) -> None:
        """Wait for the checkpoint being written, then close the folder."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> ocp.CheckpointManager:
        # orbax times its waits by the wall clock, 20 minutes by default: if the clock was set forward or the machine
        # slept during a save, the run would end. A single process waits for the disk only, so it needs no limit.
        waits = {"timeout_secs": LONG_S} if jax.process_count() == 1 else {}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept,
            create=True,
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False, **waits),
        )
        self.folder.mkdir(parents=True, exist_ok=True)  # a file of that name fails here, not in a thread of orbax
        try:
            return ocp.CheckpointManager(self.folder, options=options, item_names=("state", "extra"))
        except (ValueError, TypeError, RecursionError) as error:  # orbax reads the metadata of every checkpoint
            raise BadInputError(
                f"{self.folder}: the file _CHECKPOINT_METADATA of a checkpoint is damaged ({shown(str(error), 300)}); "
                "rename that checkpoint's folder to resume from the one before, or give another --workdir"
            ) from None

    def _restore(self, step: int, abstract_tree: PyTree) -> tuple[PyTree, dict[str, Any]]:
        wanted = {path: _as_struct(leaf) for path, leaf in _by_path(abstract_tree).items()}
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), extra=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=items)
        leaves, beside = {path: found["state"][path] for path in wanted}, found["extra"]
        # Older checkpoints have the step of the loop that saved them.
        of = beside.get("step", beside["extra"].get("step", step))
        if of != step:
            raise DamagedError(f"it is the checkpoint of step {of}; rename its folder to {of}")
        if beside["extra_sum"] != _text_sum(beside["extra"]):
            raise DamagedError("the data position and counters are not what was saved")
        sums = checksums(leaves)
        changed = [path for path in wanted if sums[path] != beside["sums"][path]]
        if changed:
            raise DamagedError(f"leaf {changed[0]!r} does not hold the bits that were saved")
        return jax.tree.unflatten(jax.tree.structure(abstract_tree), list(leaves.values())), dict(beside["extra"])

    def _stored_leaves(self, step: int) -> dict[str, Any]:
        metadata = ocp.StandardCheckpointHandler().metadata(self.folder / str(step) / "state")
        return dict(metadata.tree if hasattr(metadata, "tree") else metadata)

    def _check_leaves(self, step: int, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
        where = f"checkpoint {self.folder}/{step}"
        remedy = "give the model this run was started with, or another --workdir"
        for path, leaf in wanted.items():
            if path not in stored:
                raise BadInputError(f"{where} has no leaf {path!r} that the model needs; {remedy}")
            there = (tuple(stored[path].shape), np.dtype(stored[path].dtype))
            here = (tuple(np.shape(leaf)), np.dtype(leaf.dtype))
            if there != here:
                raise BadInputError(
                    f"{where}: leaf {path!r} is {there[1]}{list(there[0])} there, "
                    f"{here[1]}{list(here[0])} in the model; {remedy}"
                )
        surplus = sorted(stored.keys() - wanted.keys())
        if surplus:
            raise BadInputError(f"{where} has a leaf {surplus[0]!r} that the model does not know; {remedy}")

    def _set_aside(self, steps: list[int]) -> None:
        self._manager.close()

        def rename() -> None:
            for step in steps:
                (self.folder / str(step)).rename(self.folder / f"damaged-{step}")

        processes.of_first(rename)
        self._manager = self._open()


def _text_sum(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _by_path(tree: PyTree) -> dict[str, Any]:
    """Return the leaves under dotted names, so that the layout on disk does not depend on the tree's types."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _as_struct(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=getattr(leaf, "sharding", None))
