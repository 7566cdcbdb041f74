"""The cache of compiled programs on disk, shared by runs and processes, so that a shape is compiled once."""

import os
from pathlib import Path
from typing import Any

_SETTINGS: dict[str, Any] = {
    "jax_compilation_cache_dir": str(Path.home() / ".cache" / "urt_jax" / "compiled"),
    "jax_persistent_cache_min_compile_time_secs": 0.5,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def keep_programs_by_environment() -> None:
    """Set the environment so that this process and its children cache programs, unless the user has set a cache.

    jax is not imported.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name.upper(), str(value))


def keep_programs() -> None:
    """Cache the programs that this process compiles from now on, unless the user has set or disabled the cache."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    told, kept = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    if told is not None or not kept or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    for name, value in _SETTINGS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    compilation_cache.reset_cache()  # an earlier compilation may have recorded that there is no cache
