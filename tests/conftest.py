"""What every test runs under: eight virtual CPU devices, strict ranks, checked annotations, a compile cache."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before jax is imported anywhere.
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time goes into compiling programs that run once: a third of that into optimising their machine code, and
# a third of the rest into the newer way of writing the code of fusions. A collective whose devices do not all arrive
# within 40 s ends the process; a machine that stands still for so long is no error of the code.
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_collective_call_terminate_timeout_seconds=600",
        os.environ.get("XLA_FLAGS", ""),
    )
)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import install_import_hook

install_import_hook("urt_jax", "annotation_check.checked")


def pytest_configure(config: pytest.Config) -> None:
    """Set what must hold for every computation; the compile cache serves the processes of one day, not clones."""
    cache = os.environ.get("URT_TEST_CACHE") or str(Path(tempfile.gettempdir()) / f"urt-jax-test-cache-{os.getuid()}")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Let go of a file's compiled programs, which no other file runs: gigabytes by the end, and mapped regions."""
    yield
    jax.clear_caches()
    if not jax.config.jax_enable_compilation_cache:  # a mesh of several CPU devices turned it off
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real files beside the checkout (environment variable ``URT_TEST_DATA``)."""
    folder = os.environ.get("URT_TEST_DATA", "")
    if not folder:
        pytest.skip("URT_TEST_DATA is not set: give the folder with qwen-tokenizer, avt-ai-images, ...")
    if not Path(folder).is_dir():
        pytest.fail(f"URT_TEST_DATA={folder} is no folder")
    return Path(folder)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test inside an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder ``.../tiny-judge`` of a very small model with random weights; not to be changed."""
    from tests.tiny import write_judge

    return write_judge(tmp_path_factory.mktemp("models") / "tiny-judge")
