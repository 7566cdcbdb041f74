"""Checkpoints: what was saved comes back; torn ones are passed over; another model is refused by name."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.checkpoints.store import CheckpointStore
from urt_jax.errors import BadInputError
from urt_jax.sharding.mesh import make_mesh


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any


def make_state(scale: float, width: int = 8) -> State:
    params = {
        "decoder": {"kernel": scale * jnp.arange(4.0 * width).reshape(4, width)},
        "head": jnp.ones(3, jnp.bfloat16),
    }
    return State(jnp.asarray(int(scale)), params, optax.adamw(1e-3).init(params))


def shapes() -> State:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), make_state(0.0))


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def fill(folder: Path, steps: tuple[int, ...] = (1, 2, 3), keep: int = 3, every: int = 1) -> None:
    with CheckpointStore(folder, keep=keep, every=every) as store:
        for step in steps:
            store.save(step, make_state(float(step)), {"position": 10 * step})


def test_newest_checkpoint_comes_back_with_its_extra(tmp_path: Path) -> None:
    fill(tmp_path, keep=2)
    with CheckpointStore(tmp_path, keep=2) as store:
        assert store.steps() == [2, 3]
        found = store.restore_latest(shapes())
    assert found is not None
    assert (found[0], found[2]) == (3, {"position": 30})
    assert_same(found[1], make_state(3.0))


@pytest.mark.parametrize(
    ("steps", "keep", "stay"),
    [
        ((2, 4, 5), 2, [4, 5]),
        ((2, 4, 5, 6), 2, [4, 6]),
        ((2, 3, 4, 5, 6, 7), 2, [6, 7]),
        ((2, 4, 5, 6, 8), 3, [4, 6, 8]),
        ((2, 3, 4), 1, [4]),
        ((1, 3), 2, [3]),
    ],
)
def test_one_saved_early_displaces_none_of_the_regular_ones(
    tmp_path: Path, steps: tuple[int, ...], keep: int, stay: list[int]
) -> None:
    fill(tmp_path, steps, keep, every=2)
    with CheckpointStore(tmp_path, keep=keep, every=2) as store:
        assert store.steps() == stay
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == stay


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "new") as store:
        assert store.restore_latest(make_state(0.0)) is None


def test_leaves_come_back_in_the_wanted_sharding(tmp_path: Path) -> None:
    fill(tmp_path, steps=(1,))
    sharding = NamedSharding(make_mesh(data=1, fsdp=8), P(None, "fsdp"))
    abstract = shapes()
    kernel = jax.ShapeDtypeStruct((4, 8), jnp.float32, sharding=sharding)
    abstract.params["decoder"]["kernel"] = kernel
    with CheckpointStore(tmp_path) as store:
        found = store.restore_latest(abstract)
    assert found is not None
    assert found[1].params["decoder"]["kernel"].sharding == sharding
    assert_same(found[1], make_state(1.0))


@pytest.mark.usefixtures("late_reads")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("torn", ["state", "extra", "marker"])
def test_a_torn_checkpoint_is_set_aside_and_the_one_before_taken(tmp_path: Path, torn: str) -> None:
    fill(tmp_path)
    if torn == "state":
        for path in (tmp_path / "3" / "state").rglob("*"):
            if path.is_file() and "d/" in str(path.relative_to(tmp_path)):
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif torn == "extra":
        (tmp_path / "3" / "extra" / "metadata").write_text('{"posi')
    else:
        (tmp_path / "3" / "state" / "_METADATA").unlink()
    with CheckpointStore(tmp_path, keep=3) as store:
        found = store.restore_latest(make_state(0.0))
        assert found is not None
        assert (found[0], found[2]) == (2, {"position": 20})
        assert_same(found[1], make_state(2.0))
        store.save(3, make_state(7.0), {"position": 70})
    with CheckpointStore(tmp_path, keep=3) as store:
        again = store.restore_latest(make_state(0.0))
    assert again is not None
    assert_same(again[1], make_state(7.0))
    assert (tmp_path / "damaged-3").is_dir()


@pytest.mark.parametrize("older", [False, True])
def test_a_renamed_checkpoint_is_found_and_the_one_before_taken(tmp_path: Path, older: bool) -> None:
    """Older checkpoints hold their step where the training loop has put it."""
    with CheckpointStore(tmp_path, keep=3) as store:
        for step in (2, 4):
            store.save(step, make_state(float(step)), {"step": step} if older else {"position": step})
    if older:
        drop_step(tmp_path / "2")
    (tmp_path / "2").rename(tmp_path / "7")
    with CheckpointStore(tmp_path, keep=3) as store:
        found = store.restore_latest(make_state(0.0))
    assert found is not None
    assert found[0] == 4
    assert_same(found[1], make_state(4.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "damaged-7"]


def test_a_renamed_checkpoint_alone_is_refused_by_its_step(tmp_path: Path) -> None:
    fill(tmp_path, steps=(2,))
    (tmp_path / "2").rename(tmp_path / "7")
    with CheckpointStore(tmp_path) as store, pytest.raises(BadInputError, match="step 7: it is the checkpoint of step"):
        store.restore_latest(make_state(0.0))
    (tmp_path / "7").rename(tmp_path / "2")
    with CheckpointStore(tmp_path) as store:
        assert store.restore_latest(make_state(0.0)) is not None


def test_an_old_checkpoint_that_says_no_step_is_read(tmp_path: Path) -> None:
    fill(tmp_path, steps=(2,))
    drop_step(tmp_path / "2")
    with CheckpointStore(tmp_path) as store:
        found = store.restore_latest(make_state(0.0))
    assert found is not None
    assert (found[0], found[2]) == (2, {"position": 20})


@pytest.mark.parametrize("content", [b"[1]", b'{"metrics": [1]}', b'{"item_handlers": 3}', b"[" * 99_999])
def test_what_stands_beside_a_checkpoint_is_damaged(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, steps=(2, 4))
    (tmp_path / "4" / "_CHECKPOINT_METADATA").write_bytes(content)
    with pytest.raises(BadInputError, match=r"_CHECKPOINT_METADATA of a .* is damaged .*rename that"):
        CheckpointStore(tmp_path)
    (tmp_path / "4").rename(tmp_path / "damaged-4")
    with CheckpointStore(tmp_path) as store:
        found = store.restore_latest(make_state(0.0))
    assert found is not None
    assert found[0] == 2


def drop_step(checkpoint: Path) -> None:
    """Make a checkpoint one of those from before the step was stored beside the arrays."""
    path = checkpoint / "extra" / "metadata"
    beside = json.loads(path.read_text())
    del beside["step"]
    path.write_text(json.dumps(beside))


def test_a_save_killed_midway_leaves_no_checkpoint(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "3").rename(tmp_path / "3.orbax-checkpoint-tmp")
    with CheckpointStore(tmp_path) as store:
        found = store.restore_latest(make_state(0.0))
    assert found is not None
    assert found[0] == 2


SAVING = """
import itertools, sys
import jax.numpy as jnp
from urt_jax.checkpoints.store import CheckpointStore

store = CheckpointStore(sys.argv[1], keep=2)
for step in itertools.count(1):
    store.save(step, {"a": jnp.full((256, 256), float(step)), "b": jnp.full(7, step)}, {"position": 10 * step})
"""


def test_a_process_killed_while_saving_leaves_whole_checkpoints(tmp_path: Path) -> None:
    saving = subprocess.Popen([sys.executable, "-c", SAVING, str(tmp_path)], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "4").exists() and time.monotonic() < deadline and saving.poll() is None:
            time.sleep(0.01)
    finally:
        saving.kill()
        saving.wait()
    with CheckpointStore(tmp_path) as store:
        found = store.restore_latest({"a": jnp.zeros((256, 256)), "b": jnp.zeros(7, jnp.int32)})
    assert found is not None
    step, state, extra = found
    assert step >= 3
    assert extra == {"position": 10 * step}
    assert_same(state, {"a": jnp.full((256, 256), float(step)), "b": jnp.full(7, step)})


def test_when_all_are_torn_the_user_is_told(tmp_path: Path) -> None:
    fill(tmp_path, steps=(1,))
    (tmp_path / "1" / "extra" / "metadata").write_text("{")
    with CheckpointStore(tmp_path) as store, pytest.raises(BadInputError, match=r"can be read \(step 1: .*delete the"):
        store.restore_latest(make_state(0.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "shape",
            r"leaf 'params.decoder.kernel' is float32\[4, 8\] there, float32\[4, 16\] in the model; give the model",
        ),
        ("dtype", r"leaf 'params.head' is bfloat16\[3\] there, float32\[3\] in the model"),
        ("more", r"has no leaf 'params.new' that the model needs"),
        ("fewer", r"has a leaf 'opt_state.0.mu.head' that the model does not know"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, change: str, message: str) -> None:
    fill(tmp_path, steps=(1,))
    wanted = make_state(0.0, width=16 if change == "shape" else 8)
    if change == "dtype":
        wanted.params["head"] = jnp.ones(3)
    elif change == "more":
        wanted.params["new"] = jnp.ones(3)
    elif change == "fewer":
        del wanted.params["head"], wanted.opt_state[0].mu["head"], wanted.opt_state[0].nu["head"]
    with CheckpointStore(tmp_path) as store, pytest.raises(BadInputError, match=message):
        store.restore_latest(wanted)
    assert (tmp_path / "1").is_dir()
