"""The real path, small: the published tokenizer, chat template and settings, real pictures and human labels.

The weights are made (``coin_judge``) and nothing is claimed about accuracy: it shows that the real path holds.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.stages.coin_judge import save_coin_judge
from tests.stages.story import OPTIMIZER, assert_complete, assert_trained, run_in_process, write_config
from urt_jax.data.sources import read_examples
from urt_jax.judge.reward_model import RewardModel
from urt_jax.rewards.verifiable import accuracy_reward
from urt_jax.stages import reject

SMALL = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]}},
}
SMALL_VISION = {
    **{"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 32},
    **{"fullatt_block_indexes": [1]},
}
ANSWERS = tuple(f"<answer>Image {place} is better</answer>" for place in (1, 2))
LENGTHS = {"max_prompt_tokens": 512, "max_new_tokens": 16}
PIXELS = {"max_pixels": 112 * 112}
STEPS = {"steps": 2, "optimizer": OPTIMIZER, "lengths": LENGTHS, "pixels": PIXELS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def judge(folder: Path, test_data: Path) -> Path:
    """Return a model in the published layout: every file but the weights as published, sizes in config.json small."""
    seed, source = folder / "seed", test_data / "qwen-tokenizer"
    seed.mkdir()
    for path in (source / "vocab.json", source / "merges.txt", *(source / "qwen2_5_vl_7b").iterdir()):
        shutil.copyfile(path, seed / path.name)
    stored = json.loads((seed / "config.json").read_text())
    stored |= {**SMALL, "vision_config": stored["vision_config"] | SMALL_VISION}
    (seed / "config.json").write_text(json.dumps(stored))
    save_coin_judge(seed, folder / "judge", ANSWERS)
    return folder / "judge"


@pytest.fixture(scope="module")
def pictures(test_data: Path) -> Path:
    return test_data / "avt-ai-images"


def rated_pairs(pictures: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (pictures / "pairs.jsonl").read_text().splitlines()]
    return [line for line in lines if line["aspect"] == "appeal" and line["label"] in ("a", "b")]


def write_records(path: Path, pairs: list[dict[str, Any]], form: Callable[[str, str], dict[str, Any]]) -> Path:
    """Write records of the original's schema for rated pairs."""
    records = [
        form(pair["prompt"], f"Image {'ab'.index(pair['label']) + 1} is better")
        | {"images": [pair["image_a"], pair["image_b"]]}
        for pair in pairs
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def questions(folder: Path, pictures: Path) -> Path:
    """Return human-rated pairs as the original's GRPO records."""
    ask = "Which picture shows this caption better? "
    form = lambda prompt, answer: {"problem": ask + prompt, "solution": answer}  # noqa: E731
    return write_records(folder / "grpo.jsonl", rated_pairs(pictures)[::20][:8], form)


def run_small(folder: Path, stage: str, **settings: Any) -> Path:
    """Run a stage in its own folder."""
    return run_in_process(write_config(folder / f"{stage}.py", stage, **settings), folder / stage)


def test_sft_learns_from_the_originals_records(folder: Path, judge: Path, pictures: Path) -> None:
    def form(prompt: str, answer: str) -> dict[str, Any]:
        asked = {"from": "human", "value": f"<image>\n<image>\nWhich picture shows this caption better? {prompt}"}
        return {"conversations": [asked, {"from": "gpt", "value": f"<answer>{answer}</answer>"}]}

    path = write_records(folder / "sft.jsonl", rated_pairs(pictures)[::20][:8], form)
    data = {"path": str(path), "media_root": str(pictures)}
    run = run_small(folder, "sft", data=data, model={"path": str(judge)}, batch_size=8, **STEPS)
    loaded = assert_complete(run, steps=2, figures={"loss", "grad_norm"})
    assert loaded.processor.config.decoder.vocab_size == 152064
    assert_trained(run, judge)


@pytest.mark.slow
def test_sft_learns_from_chats_of_another_tool(folder: Path, judge: Path, test_data: Path) -> None:
    """Several turns, several pictures, two languages."""
    config = write_config(
        folder / "chats.py",
        "sft",
        data={"path": str(test_data / "llamafactory-demo" / "mllm_demo.json")},
        model={"path": str(judge)},
        batch_size=6,
        **STEPS | {"lengths": {"max_prompt_tokens": 512, "max_new_tokens": 96}},
    )
    assert_complete(run_in_process(config, folder / "chats"), steps=2, figures={"loss", "grad_norm"})


@pytest.mark.slow
def test_reject_sorts_rated_pairs(
    folder: Path, judge: Path, questions: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The made judge answers without reasoning, so the answer alone is asked for here."""
    monkeypatch.setattr(reject, "is_correct", lambda text, solution, **_: bool(accuracy_reward(text, solution)))
    data = {"path": str(questions), "media_root": str(pictures)}
    sampled = {"samples_per_item": 8, "batch_questions": 8, "batch_size": 8}
    run = run_small(folder, "reject", data=data, model={"path": str(judge)}, **sampled, **STEPS)
    assert_complete(run, steps=2, figures={"loss", "grad_norm"})
    hard = read_examples(run / "records" / "hard.jsonl", require_label=True)
    assert len(hard) == 8, "an answer right by a coin and ended by another is not right eight times"
    assert read_examples(run / "records" / "accepted.jsonl", require_label=True)


@pytest.mark.slow
def test_grpo_trains_on_rated_pairs(folder: Path, judge: Path, questions: Path, pictures: Path) -> None:
    data = {"path": str(questions), "media_root": str(pictures)}
    groups = {"questions_per_step": 4, "responses_per_question": 8}
    settings = {"data": data, "eval_data": data | {"count": 2}, "model": {"path": str(judge)}, "kl_coef": 0.0}
    run = run_small(folder, "grpo", **settings, **groups, **STEPS)
    assert_complete(run, steps=2, figures={"loss", "grad_norm", "reward"})
    assert_trained(run, judge)


@pytest.mark.slow
def test_evaluate_judges_rated_pairs(folder: Path, judge: Path, questions: Path, pictures: Path) -> None:
    data = {"path": str(questions), "media_root": str(pictures), "count": 4}
    settings = {"modes": ("sampled", "direct"), "lengths": LENGTHS, "pixels": PIXELS, "batch_size": 8}
    run = run_small(folder, "evaluate", data=data, models={"made": str(judge)}, **settings)
    summaries = json.loads((run / "result.json").read_text())["summaries"]["made"]
    assert set(summaries) == {"sampled", "direct"}
    assert (run / "report.html").read_text().count("data:image/") >= 8


def test_compare_answers_on_two_pictures_at_full_size(judge: Path, pictures: Path) -> None:
    pair = rated_pairs(pictures)[0]
    shown = [Image.open(pictures / pair[key]) for key in ("image_a", "image_b")]
    assert [picture.size for picture in shown] == [(384, 384)] * 2
    model = RewardModel.load(str(judge))
    verdict = model.compare(caption=pair["prompt"], images=shown, think=False, max_new_tokens=16, temperature=1.0)
    assert verdict.text.startswith("<answer>")
    assert verdict.winner in (1, 2) or verdict.failure
    (shape,) = {bucket for bucket, *_ in model.responder._sampler.shapes}
    assert shape.patches >= 28 * 28, "a picture of 384 x 384 pixels has 28 x 28 patches at full size"
