"""Rules: the intended axes, dropped where they do not divide, the same for moments as for parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.rules import mesh_axes, shardings_for, spec_for


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return make_mesh(data=1, fsdp=4, tensor=2)


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("decoder/layers/attention/q/kernel", (2, 8, 16), P(None, "fsdp", "tensor")),
        ("decoder/layers/attention/o/kernel", (2, 16, 8), P(None, "tensor", "fsdp")),
        ("decoder/layers/mlp/down/kernel", (2, 16, 8), P(None, "tensor", "fsdp")),
        ("decoder/layers/attention/k/bias", (2, 16), P(None, "tensor")),
        ("decoder/layers/attention/o/bias", (2, 16), P()),
        ("decoder/layers/norm1/scale", (2, 16), P()),
        ("vision/blocks/qkv/kernel", (2, 8, 24), P(None, "fsdp", "tensor")),
        ("vision/projector/mlp/output/kernel", (16, 8), P("tensor", "fsdp")),
        ("decoder/layers/attention/q/lora_a", (2, 8, 4), P(None, "fsdp", None)),
        ("decoder/layers/attention/q/lora_b", (2, 4, 16), P(None, None, "tensor")),
        ("decoder/layers/mlp/gate/lora_b", (2, 4, 16), P(None, None, "tensor")),
        ("decoder/layers/attention/o/lora_a", (2, 16, 4), P(None, "tensor", None)),
        ("decoder/layers/mlp/down/lora_b", (2, 4, 8), P(None, None, "fsdp")),
        ("vision/projector/mlp/output/lora_a", (16, 4), P("tensor", None)),
        ("vision/blocks/proj/lora_b", (2, 4, 8), P(None, None, "fsdp")),
        ("decoder/layers/attention/o/lora_scale", (2,), P()),
        ("decoder/layers/attention/q/lora_a", (2, 6, 4), P()),
        ("embedding", (12, 8), P("tensor", "fsdp")),
        ("head", (12, 8), P("tensor", "fsdp")),
        ("decoder/layers/attention/q/kernel", (2, 6, 16), P(None, None, "tensor")),
        ("embedding", (13, 8), P(None, "fsdp")),
        ("step", (), P()),
        ("overhead", (8, 8), P()),
    ],
)
def test_spec(mesh: jax.sharding.Mesh, path: str, shape: tuple[int, ...], spec: P) -> None:
    found = spec_for(path, shape, mesh)
    assert tuple(found) == tuple(spec) + (None,) * (len(found) - len(spec))


def test_moments_lie_with_their_parameters(mesh: jax.sharding.Mesh) -> None:
    params = {"decoder": {"q": {"kernel": jnp.zeros((8, 16))}}, "embedding": jnp.zeros((4, 8))}
    state = jax.eval_shape(optax.adamw(1e-3).init, params)
    shardings = shardings_for({"params": params, "opt": state}, mesh)
    assert shardings["opt"][0].mu == shardings["params"]
    assert shardings["params"]["embedding"].spec == P("tensor", "fsdp")


def test_a_sharded_product_equals_the_plain_one(mesh: jax.sharding.Mesh) -> None:
    rng = np.random.default_rng(0)
    params = {"up": {"kernel": rng.normal(size=(8, 16))}, "down": {"kernel": rng.normal(size=(16, 8))}}
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    x = rng.normal(size=(4, 8)).astype(np.float32)

    def block(params: dict, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ params["up"]["kernel"]) @ params["down"]["kernel"]

    shardings = shardings_for(params, mesh)
    rows = NamedSharding(mesh, P("fsdp"))
    step = jax.jit(block, in_shardings=(shardings, rows), out_shardings=rows)
    placed = jax.device_put(params, shardings)
    assert placed["up"]["kernel"].addressable_shards[0].data.shape == (2, 8)
    np.testing.assert_allclose(step(placed, x), block(params, x), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "axes"),
    [
        ("rows", 8, ("data", "fsdp")),
        ("rows", 6, ()),  # 4 devices do not divide 6
        ("rows", 0, ()),
        ("frames", 8, ("data", "fsdp", "sequence")),
        ("frames", 4, ("data", "fsdp")),
        ("tokens", 6, ("sequence",)),
        ("heads", 2, ()),  # an axis of one device is none
        ("width", 4, ("fsdp", "sequence")),
        ("width", 6, ("fsdp",)),
        ("vocabulary", 5, ()),
        (None, 8, ()),
    ],
)
def test_the_first_entry_that_divides_is_taken(name: str, size: int, axes: tuple[str, ...]) -> None:
    assert mesh_axes(name, size, make_mesh(data=2, fsdp=2, sequence=2)) == axes
