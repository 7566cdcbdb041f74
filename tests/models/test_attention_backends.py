"""Every backend of the attention table against plain XLA, value and gradient, or refused by name."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from urt_jax.config import stages
from urt_jax.models import attention
from urt_jax.models.attention import BACKENDS, CACHED, CAUSAL, FRAMES, PREFIX, SEGMENTS, backend, choose_attention
from urt_jax.ops import fused_attention
from urt_jax.sharding.activations import with_mesh
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import place_rows

WIDTH = 16


def slow_param(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_attention, "INTERPRETED", True)


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def compared(run: Any, arrays: list[Any], real_BT: np.ndarray, *, mesh: Any = None) -> None:
    """Compare splash with XLA on the places that are real: outputs, and gradients of a random function of them."""
    weight = drawn(arrays[0].shape)[0] * real_BT[..., None, None]

    def both(name: str, mesh: Any = None) -> Any:
        def loss(*arrays: Any) -> Any:
            seen = run(backend(name), *arrays)
            return jnp.sum(seen * weight), jnp.where(real_BT[..., None, None], seen, 0)

        step = jax.jit(with_mesh(jax.value_and_grad(loss, argnums=tuple(range(len(arrays))), has_aux=True), mesh))
        (_, seen), gradients = step(*place_rows(mesh, arrays))
        return seen, gradients

    (wanted, gradients), (found, others) = both("xla"), both("splash", mesh)
    np.testing.assert_allclose(found, wanted, atol=2e-6, rtol=0)
    for one, other in zip(others, gradients):
        largest = float(jnp.abs(other).max())
        assert largest > 0.1
        np.testing.assert_allclose(one, other, atol=2e-6 * largest, rtol=0)


def segments_of(length: int, rows: int) -> np.ndarray:
    """Return rows padded on the left, on the right, packed with three sequences, and full, in turn."""
    place = np.arange(length)
    kinds = (
        np.where(place >= length // 3, 1, 0),
        np.where(place < length // 2, 1, 0),
        np.select([place < length // 4, place < length // 2, place < length - 5], [1, 2, 3], 0),
        np.ones(length, int),
    )
    return np.stack([kinds[row % 4] for row in range(rows)]).astype(np.int32)


@pytest.mark.parametrize(("length", "heads"), [(200, (4, 2)), slow_param(128, (4, 4)), slow_param(72, (6, 1))], ids=str)
def test_padded_and_packed_rows(length: int, heads: tuple[int, int]) -> None:
    segments = segments_of(length, 4)
    arrays = drawn((4, length, heads[0], WIDTH), *[(4, length, heads[1], WIDTH)] * 2)

    def run(one: Any, *arrays: Any) -> Any:
        return one.attend(*arrays, one.mask(jnp.asarray(segments)))

    compared(run, arrays, segments > 0)


@pytest.mark.parametrize(("prompt", "length"), [(40, 24), slow_param(128, 128)])
def test_responses_that_share_a_prompt(prompt: int, length: int) -> None:
    """Two prompts, padded on the left; three responses each, of several lengths."""
    prompt_mask = segments_of(prompt, 2)[[0, 0]] > 0
    prompt_mask[1] = True
    own = (np.arange(length)[None] < np.array([1, length, 5, 9, length // 2, length])[:, None]).astype(np.int32)
    arrays = drawn((6, length, 4, WIDTH), *[(6, length, 2, WIDTH)] * 2, (2, 2, WIDTH, prompt), (2, 2, prompt, WIDTH))

    def run(one: Any, *arrays: Any) -> Any:
        return one.extend(*arrays, jnp.asarray(prompt_mask), one.mask(jnp.asarray(own)))

    compared(run, arrays, own > 0)


@pytest.mark.parametrize(
    "sizes", [{"data": 2, "sequence": 2, "tensor": 2}, slow_param({"data": 2, "fsdp": 2, "tensor": 2})], ids=str
)
def test_split_over_a_mesh(sizes: dict[str, int]) -> None:
    segments = segments_of(256, 4)
    arrays = drawn((4, 256, 4, WIDTH), *[(4, 256, 2, WIDTH)] * 2)

    def run(one: Any, *arrays: Any) -> Any:
        return one.attend(*arrays, one.mask(jnp.asarray(segments)))

    compared(run, arrays, segments > 0, mesh=make_mesh(**sizes))


def test_what_a_backend_lacks_is_refused_by_name() -> None:
    assert backend("xla", CAUSAL, SEGMENTS, PREFIX, CACHED, FRAMES) is BACKENDS["xla"]
    with pytest.raises(ValueError, match=r"'splash' has no mask for: one token over a cache \(it has causal, .*'xla'"):
        backend("splash", CAUSAL, CACHED)
    with pytest.raises(ValueError, match="'cudnn' has no mask for: frames without order"):
        backend("cudnn", FRAMES)
    with pytest.raises(
        ValueError, match=r"attention 'splush' is unknown; did you mean 'splash'\? known: xla, splash, cudnn"
    ):
        backend("splush")


def test_the_choice_follows_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    bfloat16, float32 = np.dtype("bfloat16"), np.dtype("float32")
    assert choose_attention("auto", float32, sequence=1) == "xla"
    with pytest.raises(ValueError, match="'splash' runs on a tpu only, this is a cpu; give 'auto' or 'xla'"):
        choose_attention("splash", float32, sequence=1)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose_attention("auto", bfloat16, sequence=1) == "splash"
    assert choose_attention("auto", bfloat16, sequence=4) == "xla"
    assert choose_attention("splash", bfloat16, sequence=4) == "splash"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_attention("auto", bfloat16, sequence=1) == "xla"
    assert choose_attention("cudnn", bfloat16, sequence=1) == "cudnn"
    with pytest.raises(ValueError, match="takes float16 and bfloat16, got float32"):
        choose_attention("cudnn", float32, sequence=1)


def test_cudnn_takes_no_float32_and_no_split_rows() -> None:
    arrays = [jnp.asarray(x) for x in drawn(*[(2, 8, 2, WIDTH)] * 3)]
    segments = jnp.ones((2, 8), jnp.int32)
    with pytest.raises(ValueError, match="takes float16 and bfloat16, got float32; choose dtype bfloat16, or"):
        BACKENDS["cudnn"].attend(*arrays, (segments, segments))
    split = with_mesh(lambda *x: BACKENDS["cudnn"].attend(*x, (segments, segments)), make_mesh(2, sequence=4))
    with pytest.raises(ValueError, match="'cudnn' cannot split rows over sequence=4 devices; choose 'xla'"):
        jax.jit(split)(*arrays)


def test_cudnn_programs_call_its_kernels_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowered for a GPU that is not there, as far as that goes; nothing runs."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(fused_attention_stablehlo, "is_cuda_compute_capability_equal", lambda _: False)
    cudnn = BACKENDS["cudnn"]

    def of(*shape: int, dtype: Any = jnp.bfloat16) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    def loss(queries: Any, keys: Any, values: Any, prompt_keys: Any, prompt_values: Any, segments: Any) -> Any:
        seen = cudnn.attend(queries, keys, values, cudnn.mask(segments))
        shared = (prompt_keys, prompt_values, segments[:2, :64] > 0)
        return (seen + cudnn.extend(queries, keys, values, *shared, cudnn.mask(segments))).astype(jnp.float32).sum()

    shapes = (of(4, 128, 4, 64), *[of(4, 128, 2, 64)] * 2, of(2, 2, 64, 64), of(2, 2, 64, 64))
    step = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))
    text = step.trace(*shapes, of(4, 128, dtype=jnp.int32)).lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"@__cudnn\$fmhaScaleBiasSoftmax(Backward)?\(", text)
    assert sorted(calls) == ["", "", "Backward", "Backward"]


def test_splash_splits_rows_in_whole_blocks_only() -> None:
    arrays = [jnp.asarray(x) for x in drawn(*[(2, 264, 2, WIDTH)] * 3)]
    segments = jnp.ones((2, 264), jnp.int32)
    split = with_mesh(lambda *x: BACKENDS["splash"].attend(*x, (segments, segments)), make_mesh(4, sequence=2))
    with pytest.raises(ValueError, match="so 264 tokens are not a multiple of 256; pad rows to one"):
        jax.jit(split)(*arrays)


def test_stages_pad_to_the_lanes_of_the_kernel() -> None:
    assert stages.LANES == fused_attention.LANES


@pytest.mark.parametrize(
    ("length", "parts", "of_rows", "of_responses"),
    [(5, 1, 1, 1), (96, 1, 2, 4), (60, 1, 1, 2), (4096, 1, 8, 4), (96, 2, 1, 1)],
)
def test_long_rows_that_lie_whole_are_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch, length: int, parts: int, of_rows: int, of_responses: int
) -> None:
    monkeypatch.setattr(attention, "token_parts", lambda: parts)
    for name in ("attend_in_blocks", "attend_with_prefix"):
        monkeypatch.setattr(attention.attention, name, lambda *_, blocks: jnp.array(blocks))
    xla, query = backend("xla"), jnp.zeros((1, length, 1, 1))
    assert (xla.attend(query), xla.extend(query)) == (of_rows, of_responses)
