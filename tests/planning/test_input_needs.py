"""What input has to deliver, by formula, and that the records it is timed on are those that the formula counts."""

import numpy as np
import pytest

from urt_jax.families.presets import preset
from urt_jax.families.processor import encode_chat
from urt_jax.planning import input_needs
from urt_jax.planning.chips import topology
from urt_jax.planning.input_case import JPEG_SIDE, PUBLISHED_CLIPS, PUBLISHED_PICTURES, input_processor, jpegs
from urt_jax.planning.timing import needed_flops
from urt_jax.planning.workloads import Workload


def test_no_step_takes_more_records_than_its_products_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_needs, "MODELS", ("qwen2_5_vl_3b",))
    monkeypatch.setattr(input_needs, "HOSTS", ("h100:1x8",))
    found = {(need.step, need.kind): need.records for need in input_needs.demands()}
    assert set(found) == {(step, kind) for step in ("SFT", "GRPO") for kind in (PUBLISHED_PICTURES, PUBLISHED_CLIPS)}
    host = topology("h100:1x8")
    for (step, kind), records in found.items():
        work = Workload(preset("qwen2_5_vl_3b"), input_needs.ROWS[kind])
        flops = sum(needed_flops(work, program) for program in input_needs.STEPS[step]) / 64
        assert 0.05 < records * flops / (host.chips * host.chip.flops) < 0.7, (step, kind)


def test_the_pictures_that_are_timed_take_the_tokens_that_are_counted() -> None:
    kind = jpegs(np.random.default_rng(0), PUBLISHED_PICTURES, 2, JPEG_SIDE, quick=True)
    chat = encode_chat(input_processor(), kind.chats[0].chat, name="x")
    rows = input_needs.ROWS[PUBLISHED_PICTURES]
    shown = int((chat.vision_T2[:, 0] >= 0).sum())
    assert shown == 2 * (rows.picture_side // 28) ** 2
    assert len(chat.frames) == rows.pictures
    assert shown < len(chat.tokens_T) <= rows.prompt_tokens
