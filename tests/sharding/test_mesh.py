"""The mesh has the asked sizes or says why not."""

from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType

from urt_jax.sharding.mesh import make_mesh


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ((-1, 1, 1), (8, 1, 1, 1)),
        ((1, -1, 2), (1, 4, 1, 2)),
        ((2, 2, 2), (2, 2, 1, 2)),
        ((8, 1, 1), (8, 1, 1, 1)),
        ((-1, 1, 1, 4), (2, 1, 4, 1)),
    ],
)
def test_sizes(given: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    mesh = make_mesh(*given)
    assert tuple(mesh.shape.values()) == sizes
    assert mesh.axis_names == ("data", "fsdp", "sequence", "tensor")
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_an_axis_may_be_part_of_one_of_the_torus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*sizes: object, **settings: object) -> None:
        raise NotImplementedError("Failed to find assignment for logical_axis_index 3")

    monkeypatch.setattr(jax, "make_mesh", refuse)
    mesh = make_mesh(2, 1, 2, 2)
    assert tuple(mesh.shape.values()) == (2, 1, 2, 2)
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert set(mesh.devices.flat) == set(jax.devices())


def test_some_devices_only() -> None:
    assert make_mesh(devices=jax.devices()[:2]).size == 2


@pytest.mark.parametrize("given", [(3, 1, 1), (-1, 3, 1), (-1, 16, 1), (2, 2, 1)])
def test_sizes_that_do_not_fit(given: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"data=.* does not fit 8 devices; their product must be"):
        make_mesh(*given)


def test_several_cpu_devices_keep_no_programs_on_disk(tmp_path: Path) -> None:
    """Read back from disk, a program with collectives stops for ever: its devices run them in different orders."""
    cache = {"jax_enable_compilation_cache": True, "jax_compilation_cache_dir": str(tmp_path)}
    before = {name: getattr(jax.config, name) for name in cache}
    add = jax.jit(lambda x: x + 1)
    try:
        for name, value in {**cache, "jax_persistent_cache_min_compile_time_secs": 0}.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        make_mesh(devices=jax.devices()[:1])
        add(np.zeros(3))
        assert list(tmp_path.iterdir())
        kept = set(tmp_path.iterdir())
        make_mesh(devices=jax.devices()[:2])
        add(np.zeros(4))
        assert set(tmp_path.iterdir()) == kept
    finally:
        for name, value in {**before, "jax_persistent_cache_min_compile_time_secs": 0.2}.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
