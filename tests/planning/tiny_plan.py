"""A case small enough to count by hand."""

from urt_jax.models.config import DecoderConfig, ModelConfig, WindowedVisionConfig
from urt_jax.planning.chips import Chip, Topology
from urt_jax.planning.search import Case
from urt_jax.planning.timing import Attained
from urt_jax.planning.workloads import RowCounts, Workload

# Width 4, two layers, four query heads and two key heads of width 2, feed-forward 8, sixteen words, untied.
DECODER = DecoderConfig(16, 4, 2, 4, 2, 2, 8, mrope_section=(1, 0, 0))
TOWER = WindowedVisionConfig(
    2, 4, 1, 4, out_width=4, patch_size=1, temporal_patch_size=1, channels=1, window_size=2, full_attention_layers=(1,)
)
MODEL = ModelConfig(DECODER, TOWER, image_token_id=4, video_token_id=5, vision_start_token_id=2, vision_end_token_id=3)
ROWS = RowCounts(questions=8, responses=2, prompt_tokens=10, pictures=1, picture_side=4, new_tokens=3, sft_rows=8)
WORK = Workload(MODEL, ROWS)
LAYER = 4 * (4 * 2 + 2 * 2 + 2 * 2 + 4 * 2) + 3 * 4 * 8  # q, k, v, o, then gate, up, down


def tiny_case(memory: float, *, shape: tuple[int, ...] = (2, 2), **more: object) -> Case:
    """Return the case on a torus of chips with this much memory and round rates: 1,000, 100 and, of a link, 10."""
    chip = Chip("toy", "tpu", 1000.0, memory, 100.0, 10.0, 2, 4, 64, 1.0, "nowhere")
    programs = ("prefill", "decode", "score", "grpo")
    told = {"programs": programs, "attained": Attained(1, 1, 1), "attention": "whole", **more}
    return Case("toy", WORK, Topology(chip, shape), **told)  # type: ignore[arg-type]
