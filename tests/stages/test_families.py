"""SFT and GRPO on every published family, end to end, on real pictures and on real video files, at small size.

The weights are made (``coin_judge``) and nothing is claimed about accuracy: it shows that the real path holds.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.family_judges import write_family_judge
from tests.stages.story import OPTIMIZER, assert_complete, run_in_process, write_config
from tests.stages.test_real_input import rated_pairs
from urt_jax.checkpoints.model_folder import load_model
from urt_jax.data.collate import length_of, need_of, roomy
from urt_jax.data.examples import Chat, Media, Query
from urt_jax.families.processor import encode_chat
from urt_jax.judge.reward_model import RewardModel

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_qwen")
KINDS = {"Image": "pictures", "Video": "videos"}
LENGTHS = {"max_prompt_tokens": 700, "max_new_tokens": 32}
STEPS = {"steps": 2, "optimizer": OPTIMIZER, "lengths": LENGTHS}
PIXELS = {"qwen2_5_vl": {"max_pixels": 112 * 112}, "qwen3_vl": {"min_pixels": 64 * 64, "max_pixels": 128 * 128}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def records(noun: str, test_data: Path) -> list[dict[str, Any]]:
    """Return questions of the original's GRPO schema on real pictures or on the three real pairs of videos."""
    if noun == "Image":
        pairs = rated_pairs(test_data / "avt-ai-images")[::20][:6]
        return [
            {
                "problem": f"Which picture shows this caption better? {pair['prompt'][:80]}",
                "solution": f"Image {'ab'.index(pair['label']) + 1} is better",
                "images": [pair["image_a"], pair["image_b"]],
            }
            for pair in pairs
        ]
    with (test_data / "videoalign-examples" / "example.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [
        {
            "problem": f"Which video shows this caption better? {row['prompt'][:80]}",
            "solution": f"Video {'AB'.index(row['TA']) + 1 if row['TA'] in 'AB' else 1} is better",
            "videos": [row["path_A"], row["path_B"]],
        }
        for row in rows
    ]


def data_of(noun: str, folder: Path, test_data: Path, *, responses: bool) -> dict[str, Any]:
    """Write the records of a kind, with the answers to learn where asked for, and return the data settings."""
    made = records(noun, test_data)
    if responses:
        for record in made:
            tags = f"<{noun.lower()}>\n" * 2
            asked = {"from": "human", "value": tags + record.pop("problem")}
            answer = {"from": "gpt", "value": f"<answer>{record.pop('solution')}</answer>"}
            record["conversations"] = [asked, answer]
    path = folder / f"{noun}-{responses}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    root = test_data / ("avt-ai-images" if noun == "Image" else "videoalign-examples")
    return {"path": str(path), "media_root": str(root), "max_frames": 4}


def assert_learnt(run: Path, judge: Path, figures: set[str]) -> None:
    """Check the run folder, that the decoder moved, and that the tower stayed as it was."""
    trained, before = assert_complete(run, steps=2, figures=figures), load_model(str(judge))
    assert trained.processor.config == before.processor.config
    gate = trained.params["decoder"]["layers"]["mlp"]["gate"]["kernel"]
    assert not np.array_equal(gate, before.params["decoder"]["layers"]["mlp"]["gate"]["kernel"])
    qkv = "q" if "q" in trained.params["vision"]["blocks"] else "qkv"
    for part in (("blocks", qkv, "kernel"), ("patch_embed", "kernel")):
        one, other = trained.params["vision"], before.params["vision"]
        for key in part:
            one, other = one[key], other[key]
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_learns_from_pictures_and_videos(family: str, folder: Path, test_data: Path) -> None:
    judge = write_family_judge(family, folder, "Image")
    data = [data_of(noun, folder, test_data, responses=True) for noun in KINDS]
    settings = {"data": data, "model": {"path": str(judge)}, "pixels": PIXELS.get(family, {}), "batch_size": 6}
    config = write_config(folder / f"sft-{family}.py", "sft", **settings, **STEPS)
    run = run_in_process(config, folder / f"sft-{family}")
    assert_learnt(run, judge, {"loss", "grad_norm"})


@pytest.mark.slow
@pytest.mark.parametrize("noun", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_grpo_learns_from_pictures_and_videos(family: str, noun: str, folder: Path, test_data: Path) -> None:
    judge = write_family_judge(family, folder, noun)
    data = data_of(noun, folder, test_data, responses=False)
    groups = {"questions_per_step": 3, "responses_per_question": 8, "kl_coef": 0.0}
    held_out = {key: data[key] for key in ("path", "media_root")} | {"count": 2}
    settings = {"data": data, "eval_data": held_out, "model": {"path": str(judge)}}
    pixels = {"pixels": PIXELS.get(family, {})}
    config = write_config(folder / f"grpo-{family}-{noun}.py", "grpo", **settings, **groups, **STEPS, **pixels)
    run = run_in_process(config, folder / f"grpo-{family}-{noun}")
    assert_learnt(run, judge, {"loss", "grad_norm", "reward"})
    figures = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["sampling/sampling_logp_difference/max"] for line in figures) < 1e-4


@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[1:])]
)
def test_pictures_of_many_shapes_take_few_programs(family: str, folder: Path) -> None:
    """Twelve aspect ratios, each a batch of its own: planned together at most 8 programs, one by one few sizes."""
    judge = RewardModel.load(str(write_family_judge(family, folder, "Image")))
    rng = np.random.default_rng(0)
    shapes = [(40 + 15 * i, 220 - 15 * i) for i in range(12)]
    chats = [
        Chat(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "which?"}]}],
            (Media("image", rng.integers(0, 256, (*shape, 3)).astype(np.uint8)),),
        )
        for shape in shapes
    ]
    encoded = [encode_chat(judge.processor, chat, name="q") for chat in chats]
    grids = {(len(chat.frames), *chat.frames[0].positions_P2.max(axis=0), len(chat.tokens_T)) for chat in encoded}
    assert len(grids) > 4, "the pictures must differ in what the model sees"
    queries = [Query(f"q{i}", chat) for i, chat in enumerate(chats)]
    judge.respond(queries, temperature=0.0, seed=0, max_new_tokens=2, batch_size=1)
    assert max(judge.responder._sampler.programs().values()) == len(judge.responder._sampler.shapes) <= 8
    for chat in chats:
        judge.logits(messages=chat.messages, images=[media.source for media in chat.images])
    needs = [need_of([length_of(chat)], rows=1) for chat in encoded]
    buckets = {roomy(need, slot_step=judge.processor.config.vision.slot_step) for need in needs}
    assert judge.responder._logits._cache_size() == len(buckets) <= 8 < len(set(shapes))
