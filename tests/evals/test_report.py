"""The report: whole, safe, self-contained, with every figure and picture in it."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evals.judged import image_pair, judgement, written
from urt_jax.data.examples import Example, Media
from urt_jax.errors import BadInputError
from urt_jax.evals.completions import Completion, CompletionGroup
from urt_jax.evals.pairwise import Judgement, judge_texts
from urt_jax.evals.pictures import picture_url
from urt_jax.evals.report import Sample, write_report
from urt_jax.evals.statistics import summarize

RIGHT = written((9, 9, 5), (6, 7, 8), 1)
EVIL = "<script>alert('x')</script> & \"quoted\""
VOID = {"meta", "img", "line", "rect", "circle", "polyline", "br"}


class Balance(HTMLParser):
    """Collects tags and sees whether every one is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"


def judged_pairs() -> list[Judgement]:
    return [
        judgement("a", "given", 1, agreement=True, gold_match=0.5, task="image_gen", difficulty="hard"),
        judgement("a", "swapped", 2, agreement=True, gold_match=1.0, task="image_gen", difficulty="hard"),
        judgement("b", "given", 2, agreement=False, task="image_gen", difficulty="easy"),
        judgement("b", "swapped", None, task="image_gen", difficulty="easy"),
    ]


def report(tmp_path: Path, **more: Any) -> tuple[str, Balance]:
    """Write a report with one summary and what else is given; return its text and its parsed tags."""
    path = tmp_path / "run" / "report.html"
    write_report(path, **({"title": "T", "summaries": {"base": {"greedy": summarize(judged_pairs())}}} | more))
    text = path.read_text(encoding="utf-8")
    tags = Balance()
    tags.feed(text)
    assert tags.open == []
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
    return text, tags


def words(page: str) -> str:
    """What a reader sees, one space between words."""
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)).split())


def test_every_figure_stands_in_the_table(tmp_path: Path) -> None:
    summary = summarize(judged_pairs())
    page, _ = report(tmp_path, baselines={"caption only": 0.5432})
    seen = words(page)
    for estimate in (
        summary.accuracy,
        summary.accuracy_dropped,
        summary.accuracy_random,
        summary.position_consistency,
        summary.parse_failure,
        summary.score_agreement,
        summary.first_position,
        summary.gold_match,
        summary.by_difficulty["hard"].accuracy,
        summary.by_difficulty["easy"].accuracy,
    ):
        assert f"{100 * estimate.value:.1f}" in seen
        assert f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}" in seen
    assert f"of {summary.score_agreement.n}" in seen
    assert "caption only 54.3" in seen
    assert "4 judgements of 2 pairs" in seen


def test_every_written_text_is_escaped(tmp_path: Path) -> None:
    example = dataclasses.replace(image_pair(EVIL), prompt=EVIL, candidates=(EVIL + "1", EVIL + "2"))
    sample = Sample(example, {EVIL: judge_texts(example, [EVIL])})
    summaries = {EVIL: {EVIL: summarize([dataclasses.replace(j, task=EVIL, difficulty=EVIL) for j in judged_pairs()])}}
    page, tags = report(
        tmp_path,
        title=EVIL,
        note=EVIL,
        summaries=summaries,
        curves={f"{EVIL}/{EVIL}": [(0, 1.0), (1, 2.0)]},
        samples=[sample],
        baselines={EVIL: 0.5},
        settings={EVIL: EVIL},
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 14
    assert not [tag for tag, _ in tags.seen if tag == "script"]


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    example = image_pair("a")
    page, tags = report(tmp_path, samples=[Sample(example, {"base": judge_texts(example, [RIGHT])})])
    assert "http" not in page
    assert "url(" not in page
    sources = [attrs["src"] for _, attrs in tags.seen if "src" in attrs]
    assert len(sources) == 2
    assert all(source is not None and source.startswith("data:image/") for source in sources)
    assert not [attrs for _, attrs in tags.seen if "href" in attrs]


def test_a_sample_shows_pictures_scores_reasoning_and_verdict(tmp_path: Path) -> None:
    example = image_pair("pair-7")
    off = written((9, 9, 5), (2, 7, 8), 2)
    page, tags = report(
        tmp_path,
        samples=[
            Sample(
                example,
                {
                    "base": judge_texts(example, [RIGHT]),
                    "after": judge_texts(example, [off]),
                    "lost": judge_texts(example, ["<think>so on"]),
                },
            )
        ],
    )
    seen = words(page)
    urls = [str(attrs["src"]) for tag, attrs in tags.seen if tag == "img"]
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]
    for shown, media in zip(pixels, example.candidates, strict=True):
        assert isinstance(media, Media)
        np.testing.assert_array_equal(shown, media.source)
    assert "Image 1 (better)" in seen
    assert "Image 2 (better)" not in seen
    for state in ("✓ right", "✗ wrong", "no verdict"):
        assert seen.count(state) == 1
    assert seen.count("9 / 9 6 / 6") == 1  # semantic scores of the first judge: gold / given
    assert '<span class="off">2</span>' in page
    assert "Total, adds up 23 / 23 21 / 21" in seen
    assert "Total, does not add up 23 / 23 21 / 17" in seen
    assert "1. Semantic consistency: Image 1 (9/10) - a; Image 2 (2/10) - b" in seen
    failure = judge_texts(example, ["<think>so on"]).verdict.failure
    assert failure is not None
    assert failure in page.replace("&lt;", "<").replace("&gt;", ">")


def test_a_swapped_sample_shows_the_swapped_pair(tmp_path: Path) -> None:
    example = image_pair("a")
    mirrored = judge_texts(example.swapped(), [written((6, 7, 8), (9, 9, 5), 2)], order="swapped")
    page, _ = report(tmp_path, samples=[Sample(example, {"base": mirrored})])
    seen = words(page)
    assert "Image 2 (better)" in seen
    assert "order swapped" in seen
    assert "✓ right" in seen
    assert "6 / 6 9 / 9" in seen
    both = {"base": mirrored, "other": judge_texts(example, [RIGHT])}
    with pytest.raises(BadInputError, match="sample a: its judgements are of different orders"):
        report(tmp_path, samples=[Sample(example, both)])


def test_clips_are_shown_as_frames_and_context_beside_written_answers(tmp_path: Path) -> None:
    clip = Media("video", np.zeros((9, 28, 28, 3), np.uint8))
    video = Example(id="v", task="video_gen", prompt="moves", candidates=(clip, clip), label=1)
    und = Example(
        id="u",
        task="image_und",
        prompt="what?",
        context=(Media("image", np.zeros((28, 28, 3), np.uint8)),),
        candidates=("it is red", "it is blue"),
        label=2,
    )
    samples = [
        Sample(video, {"m": judge_texts(video, ["<answer>Video 1 is better</answer>"], think=False)}),
        Sample(und, {"m": judge_texts(und, ["<answer>Answer 2 is better</answer>"], think=False)}),
    ]
    page, tags = report(tmp_path, samples=samples)
    assert sum(tag == "img" for tag, _ in tags.seen) == 2 * 6 + 1
    assert "frame 6" in page
    for text in ("it is red", "it is blue", "Answer 2 (better)", "Video 1 (better)"):
        assert text in words(page)


def test_curves_are_grouped_by_stage(tmp_path: Path) -> None:
    curves = {"sft/loss": [(0, 2.0), (9, 0.5)], "grpo/reward": [(n, n / 50) for n in range(50)], "grpo/none": []}
    page, tags = report(tmp_path, curves=curves)
    assert sum(tag == "polyline" for tag, _ in tags.seen) == 3  # loss; reward raw and smoothed
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["sft", "grpo"]
    assert "2 → 0.5" in words(page)


def test_settings_are_flat_lines(tmp_path: Path) -> None:
    page, _ = report(tmp_path, settings={"seed": 0, "data": {"path": "scenes", "count": None}, "modes": ["greedy"]})
    assert "seed 0 data.path scenes data.count null" in words(page)


def test_large_pictures_are_scaled_down() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    url = picture_url(noise)
    assert url.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).size == (448, 336)


def test_nothing_to_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="a report needs at least one summary"):
        write_report(tmp_path / "r.html", title="T", summaries={"base": {}})


def test_completions_stand_below_their_question_with_every_reward(tmp_path: Path) -> None:
    example = image_pair("pair-3").swapped()
    group = CompletionGroup(
        example,
        [
            Completion(RIGHT, {"format": 1.0, "swap_consistency": 0.12345}, 1.25),
            Completion(EVIL, {"format": 0.0, "swap_consistency": None}, None),
        ],
    )
    page, tags = report(tmp_path, completions=[group])
    seen = words(page)
    assert "format swap consistency reward response 1 0.123 1.25 &lt;think&gt;" in seen
    assert "0 – – &lt;script&gt;" in seen
    assert EVIL not in page
    assert "order swapped · pair-3" in seen
    assert "Image 2 (better)" in seen
    assert sum(tag == "img" for tag, _ in tags.seen) == 2
    assert "Completions" not in words(report(tmp_path / "none")[0])
