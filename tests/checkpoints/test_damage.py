"""Checkpoints that were cut short, changed or left half written: never taken for whole, never in the way."""

import random
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.checkpoints.checksums import checksums
from urt_jax.checkpoints.store import CheckpointStore
from urt_jax.errors import BadInputError
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_state

pytestmark = [
    pytest.mark.usefixtures("late_reads"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def state_of(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    return {
        "kernel": jnp.asarray(rng.normal(size=(64, 48)), jnp.float32),
        "head": jnp.asarray(rng.normal(size=300), jnp.bfloat16),
        "count": jnp.int32(step),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with CheckpointStore(folder, keep=3) as store:
        for step in (1, 2):
            store.save(step, state_of(step), {"position": 10 * step})
    return folder


def restored(folder: Path) -> tuple[int, Any, Any]:
    with CheckpointStore(folder, keep=3) as store:
        found = store.restore_latest(state_of(0))
    assert found is not None
    return found


def assert_what_was_saved(found: tuple[int, Any, Any]) -> None:
    step, state, extra = found
    assert extra == {"position": 10 * step}
    for name, leaf in state_of(step).items():
        np.testing.assert_array_equal(np.asarray(state[name]), np.asarray(leaf))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("seed", range(20))
def test_cut_at_a_random_offset_it_gives_what_was_saved(tmp_path: Path, whole: Path, seed: int) -> None:
    """The offset is drawn over all bytes of the checkpoint, as if its files lay one behind the other."""
    folder = shutil.copytree(whole, tmp_path / "checkpoints")
    files = files_of(folder / "2")
    offset = random.Random(seed).randrange(sum(path.stat().st_size for path in files))
    print(f"seed {seed}: cut at byte {offset}")
    for path in files:
        size = path.stat().st_size
        if offset < size:
            path.write_bytes(path.read_bytes()[:offset])
            break
        offset -= size
    found = restored(folder)
    assert_what_was_saved(found)
    assert found[0] == 2 or (folder / "damaged-2").is_dir()


def test_each_file_may_be_empty_or_missing(tmp_path: Path, whole: Path) -> None:
    for number, path in enumerate(files_of(whole / "2")):
        for missing in (False, True):
            folder = shutil.copytree(whole, tmp_path / f"{number}-{missing}")
            torn = folder / path.relative_to(whole)
            torn.unlink()
            if not missing:
                torn.touch()
            assert_what_was_saved(restored(folder))


def test_a_checkpoint_whose_bits_changed_is_set_aside(tmp_path: Path, whole: Path) -> None:
    """What another checkpoint holds is as readable as can be; only the sums tell."""
    folder = shutil.copytree(whole, tmp_path / "checkpoints")
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(whole / "1" / "state", folder / "2" / "state")
    assert restored(folder)[0] == 1
    with CheckpointStore(tmp_path / "one", keep=1) as store:
        store.save(1, state_of(1), {})
    shutil.rmtree(tmp_path / "one" / "1" / "state")
    shutil.copytree(whole / "2" / "state", tmp_path / "one" / "1" / "state")
    with (
        CheckpointStore(tmp_path / "one", keep=1) as store,
        pytest.raises(BadInputError, match=r"step 1: leaf '\w+' does not hold the bits that were saved.*delete the"),
    ):
        store.restore_latest(state_of(0))


def test_a_changed_position_is_not_taken(tmp_path: Path, whole: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "checkpoints")
    path = folder / "2" / "extra" / "metadata"
    path.write_text(path.read_text().replace('"position": 20', '"position": 70').replace(":20", ":70"))
    assert "70" in path.read_text()
    assert restored(folder)[0] == 1


def test_sums_are_those_of_the_bits_on_every_mesh() -> None:
    state = state_of(3)
    plain = checksums(state)
    for sizes in ((8, 1, 1), (1, 8, 1), (2, 2, 2)):
        mesh = make_mesh(*sizes)
        assert checksums(place_state(mesh, {"decoder": state})["decoder"]) == plain
    for name, leaf in state.items():
        other = jnp.ravel(leaf).at[-1].multiply(-1).reshape(leaf.shape)
        assert checksums({name: other})[name] != plain[name]
        assert leaf.ndim == 0 or checksums({name: jnp.flip(leaf, -1)})[name] != plain[name]
    assert checksums({"flag": jnp.array([True, False])}) != checksums({"flag": jnp.array([False, True])})
    assert jax.tree.leaves(checksums({"none": jnp.zeros((0, 3))})) == [0]
