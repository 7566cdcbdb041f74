"""Counting collectives in the text of a compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from urt_jax.planning.hlo import Collective, collectives, kernels
from urt_jax.sharding.mesh import make_mesh

TEXT = """\
HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (x: f32[8,4]) -> f32[2,4] {
  %all-reduce.9 = f32[8,4]{1,0:T(8,128)} all-reduce(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %g = bf16[16,4]{1,0:T(8,128)(2,1)} all-gather(%p), replica_groups=[2,4]<=[8], dimensions={0}
  %s = f32[2,4] fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %c = s32[]{:T(128)} constant(28)
  ROOT %lt = pred[] compare(%i, %c), direction=LT
}

%unrolled (p: (f32[2], u32[])) -> (f32[2], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %next = u32[]{:T(128)} add(%i, %two)
  %v = f32[2] collective-permute(%x), source_target_pairs={{0,1}}
  ROOT %t = (f32[2]{0}, u32[]{:T(128)}) tuple(%v, %next)
}

%until (p: (f32[2], u32[])) -> pred[] {
  %eight = u32[]{:T(128)} constant(8)
  %j = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %lt = pred[] compare(%j, %eight), direction=LT
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %w = (s32[], f32[8,4]) while(%t), condition=%condition, body=%body
  %u = (f32[2], u32[]) while(%t), condition=%until, body=%unrolled
  %r = (f32[10]{0}, bf16[6]{0}) all-reduce(%w, %w), replica_groups={{0,1}}, to_apply=%add
  %q = (bf16[8]{0}, bf16[8]{0}, u32[]{:S(2)}) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %m = f32[8,4] all-gather(%x), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, dimensions={0}
  %k = f32[8] custom-call(%x), custom_call_target="tpu_custom_call"
}
"""


def test_loops_and_fused_reductions_are_counted() -> None:
    assert collectives(TEXT) == [
        Collective("all-gather", 29, 28 * 16 * 4 * 2 * 3 / 4 + 8 * 4 * 4 * 7 / 8),
        Collective("all-reduce", 1, (40 + 12) * 2 / 2),
        Collective("collective-permute", 1 + 4, 16.0 + 4 * 8),
        Collective("reduce-scatter", 28, 28 * 8 * 4 * 4 * 3 / 4),
    ]
    assert kernels(TEXT) == ["tpu_custom_call"]


def test_a_real_program_gathers_its_weights_once_a_layer() -> None:
    mesh = make_mesh(1, 8, 1)
    weights = jax.ShapeDtypeStruct((5, 64, 64), jnp.float32, sharding=NamedSharding(mesh, P(None, "fsdp")))
    rows = jax.ShapeDtypeStruct((4096, 64), jnp.float32, sharding=NamedSharding(mesh, P("fsdp")))

    def layers(x: jax.Array, w: jax.Array) -> jax.Array:
        def body(x: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
            return jax.lax.with_sharding_constraint(jnp.tanh(x @ layer), NamedSharding(mesh, P("fsdp"))), None

        return jax.lax.scan(body, x, w)[0]

    found = collectives(jax.jit(layers).lower(rows, weights).compile().as_text() or "")
    assert [one.kind for one in found] == ["all-gather"]
    assert found[0].runs == 5
    np.testing.assert_allclose(found[0].bytes, 5 * 64 * 64 * 4 * 7 / 8)
