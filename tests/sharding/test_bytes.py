"""What compiled programs hold on one device falls as the mesh says: parameters, optimizer, caches."""

from typing import Any

import jax
import numpy as np
import pytest

from tests.sharding.meshed import RESPONSES, SLOTS, TOKENS, compiled_grpo, grpo_arguments, sample, some_slow
from tests.tiny import CONFIG, MODEL, PROCESSOR
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import DecodeSettings

# Devices that each axis is split over: width and inner width of weights, rows, heads and slots of caches.
PARTS = {
    "one device": {"width": 1, "inner": 1, "rows": 1, "heads": 1, "slots": 1},
    "data=8": {"width": 1, "inner": 1, "rows": 8, "heads": 1, "slots": 1},
    "fsdp=8": {"width": 8, "inner": 1, "rows": 8, "heads": 1, "slots": 1},
    "data=2 fsdp=2 tensor=2": {"width": 2, "inner": 2, "rows": 4, "heads": 2, "slots": 1},
    "data=2 sequence=4": {"width": 4, "inner": 1, "rows": 2, "heads": 1, "slots": 4},
    "fsdp=2 sequence=2 tensor=2": {"width": 4, "inner": 2, "rows": 2, "heads": 2, "slots": 2},
}


def held(tree: Any, shardings: Any) -> int:
    """Return the bytes of a program's arguments on one device by its input shardings; it drops what it never reads."""

    def size(x: Any, place: Any) -> int:
        return 0 if place is None else int(np.prod(place.shard_shape(x.shape))) * x.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(size, tree, shardings)))


@pytest.mark.parametrize("name", some_slow(PARTS))
def test_parameters_and_moments(name: str) -> None:
    parts, compiled, arguments = PARTS[name], compiled_grpo(name), grpo_arguments(name)
    state, places = arguments[0], compiled.input_shardings[0]
    width, head, feed = CONFIG.decoder.width, CONFIG.decoder.head_width, CONFIG.decoder.feed_forward
    keys, layers = CONFIG.decoder.kv_heads * head, CONFIG.decoder.layers
    matrices = layers * width * (2 * width + 2 * keys + 3 * feed) + 2 * CONFIG.decoder.vocab_size * width
    biases, norms = layers * (width + 2 * keys), (2 * layers + 1) * width
    expected = 4 * (matrices // (parts["width"] * parts["inner"]) + biases // parts["inner"] + norms)
    assert held(state.trainable, places[0].trainable) == expected
    assert held(state.opt_state, places[0].opt_state) == expected  # its one moment
    memory = compiled.memory_analysis()
    assert memory.argument_size_in_bytes == pytest.approx(held(arguments, places), rel=0.01)
    assert memory.alias_size_in_bytes >= 2 * expected, "the new state takes the old one's memory"


@pytest.mark.parametrize("name", some_slow(PARTS))
def test_caches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight questions divide by all devices but those of ``tensor``, so ``sequence`` splits rows too."""
    parts = PARTS[name]
    check_caches(name, 8, {**parts, "rows": parts["rows"] * parts["slots"], "slots": 1}, monkeypatch)


@pytest.mark.parametrize("name", some_slow([name for name in PARTS if "sequence" in name]))
def test_caches_of_few_long_prompts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two questions do not, so ``sequence`` splits the slots of their prompts."""
    check_caches(name, 2, PARTS[name], monkeypatch)


def check_caches(name: str, questions: int, parts: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, seen = Sampler(MODEL, PROCESSOR), []
    advance = sampler.engine._advance

    def watched(*arguments: Any, **static: Any) -> Any:
        compiled = advance.lower(*arguments, **static).compile()
        seen.append((arguments, compiled.input_shardings[0], compiled.memory_analysis().argument_size_in_bytes))
        return advance(*arguments, **static)

    monkeypatch.setattr(sampler.engine, "_advance", watched)
    sample(sampler, name, questions, decoding=DecodeSettings(questions * RESPONSES))
    [(arguments, places, measured)] = seen
    state, at = arguments[2].state, places[2].state
    slot = 2 * 4 * CONFIG.decoder.layers * CONFIG.decoder.kv_heads * CONFIG.decoder.head_width  # keys and values
    prompts = slot * questions * TOKENS // (parts["rows"] * parts["heads"] * parts["slots"])
    responses = slot * questions * RESPONSES * SLOTS // (parts["rows"] * parts["heads"])
    assert held(state.prompt, at.prompt) == prompts
    assert held(state.past, at.past) == responses
    assert prompts + responses < measured
