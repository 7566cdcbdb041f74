"""The records per second that published models need on one host, by formula, and that the input must deliver."""

from typing import NamedTuple

from urt_jax.families.presets import preset
from urt_jax.planning.chips import topology
from urt_jax.planning.input_case import PUBLISHED_CLIPS, PUBLISHED_PICTURES
from urt_jax.planning.memory import Program
from urt_jax.planning.search import Case, search
from urt_jax.planning.workloads import RowCounts, Workload

MODELS = ("qwen2_5_vl_3b", "qwen2_5_vl_7b")
HOSTS = ("h100:1x8", "v5p:2x2x1", "v6e:2x4")  # the chips of one host
# Sizes of prompts with such media; a video counts as half as many pictures as frames, since frames are merged by two.
ROWS = {
    PUBLISHED_PICTURES: RowCounts(64, 8, 2 * (35**2 + 2) + 400, 2, 980, 512, sft_rows=64),
    PUBLISHED_CLIPS: RowCounts(64, 8, 8 * (27**2 + 2) + 400, 8, 756, 512, sft_rows=64),
}
STEPS: dict[str, tuple[Program, ...]] = {"SFT": ("sft",), "GRPO": ("prefill", "decode", "grpo")}


class Demand(NamedTuple):
    """The records per second of a kind that one host's input must deliver for a model's steps."""

    model: str
    host: str
    step: str
    kind: str
    records: float


def demands() -> list[Demand]:
    """Return the demand of every model on every host that can train it.

    It is an upper bound: the fastest layout, without a reference policy, with attention that keeps scores out of
    memory.
    """
    found = []
    for model in MODELS:
        for host in HOSTS:
            for step, programs in STEPS.items():
                for kind, rows in ROWS.items():
                    case = Case(model, Workload(preset(model), rows), topology(host), programs, attention="blocks")
                    taken = rows.sft_rows if step == "SFT" else rows.questions
                    found += [Demand(model, host, step, kind, taken / best.step) for best in search(case)[:1]]
    return found
