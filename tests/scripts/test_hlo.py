"""What compiled.py reads of XLA's programs: of texts written by hand, and of a real program for the CPU."""

import jax
import jax.numpy as jnp
import pytest

from scripts.benchmarks import hlo

PROGRAM = """HloModule jit_compute

%fused_scale (param_0: f32[8,4]) -> bf16[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %convert.1 = bf16[8,4]{1,0} convert(%param_0)
}

%cond (state: (s32[], f32[8,4])) -> pred[] {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %limit = s32[] constant(3)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (state.1: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  %x.1 = f32[8,4]{1,0} get-tuple-element(%state.1), index=1
  %copy.1 = f32[8,4]{1,0} copy(%x.1), backend_config={"window_config":{"estimated_cycles":"50"}}
  ROOT %next = (s32[], f32[8,4]{1,0}) tuple(%x.1, %copy.1)
}

ENTRY %main (photos: f32[8,4], image: bf16[2,6,6,8], kernel: bf16[16,3,3,8], bias: bf16[16]) -> bf16[8,4] {
  %photos = f32[8,4]{1,0} parameter(0)
  %image = bf16[2,6,6,8]{3,2,1,0} parameter(1)
  %kernel = bf16[16,3,3,8]{3,2,1,0} parameter(2)
  %bias = bf16[16]{0} parameter(3)
  %conv = (bf16[2,6,6,16]{3,2,1,0}, u8[0]{0}) custom-call(%image, %kernel, %bias), LABELS, TARGET
  %start = (s32[], f32[8,4]{1,0}) tuple(%photos, %photos)
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%cond, body=%body
  %y = f32[8,4]{1,0} get-tuple-element(%loop), index=1
  ROOT %scaled = bf16[8,4]{1,0} fusion(%y), kind=kLoop, calls=%fused_scale
}
""".replace("LABELS", "dim_labels=b01f_o01i->b01f").replace(
    "TARGET", 'custom_call_target="__cudnn$convBiasActivationForward"'
)


def test_kernels_are_counted_with_what_they_move_and_compute():
    conv, copied, scaled = hlo.kernels(PROGRAM)
    assert conv.kind == "cuDNN convolution with bias and ReLU"
    assert conv.flops == 2 * (2 * 6 * 6) * 16 * (3 * 3 * 8)
    assert conv.bytes == 2 * (2 * 6 * 6 * 8 + 16 * 3 * 3 * 8 + 16 + 2 * 6 * 6 * 16)
    assert (copied.times, copied.cycles, copied.bytes) == (3, 50, 2 * 8 * 4 * 4)
    assert (scaled.kind, scaled.times, scaled.bytes) == ("elementwise", 1, 8 * 4 * (4 + 2))


def test_a_summary_adds_up_loops_and_takes_the_slower_of_both_limits():
    found = hlo.summary(hlo.kernels(PROGRAM), flops={"bf16": 1e6}, bandwidth=1e6)
    assert (found["kernels"], found["cycles"]) == (5, 150)
    conv = hlo.kernels(PROGRAM)[0]
    assert conv.flops > conv.bytes  # computing is its limit, moving that of the others
    assert found["roofline seconds"] == pytest.approx((conv.flops + 3 * 256 + 192) / 1e6)
    assert hlo.summary(hlo.kernels(PROGRAM), {}, 0)["roofline seconds"] is None


def test_a_real_program_has_the_products_that_were_written():
    x = jax.ShapeDtypeStruct((32, 64), jnp.float32)
    text = jax.jit(lambda x: jnp.tanh(x) @ x.T).lower(x).compile().as_text()
    assert sum(one.flops for one in hlo.kernels(text)) == 2 * 32 * 64 * 32
