"""A judge that is right in 94 % of a set of pairs is measured so, in whatever form the pairs are written down."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from urt_jax.data.examples import Query
from urt_jax.data.settings import HeldOutData
from urt_jax.errors import BadInputError
from urt_jax.evals.pairwise import judge_pairs
from urt_jax.evals.protocols import PROTOCOLS
from urt_jax.evals.statistics import summarize
from urt_jax.feeds.records import labelled_pool

PAIRS = 50
WRONG = frozenset({7, 23, 41})  # 3 of 50: right in 94 %
QUESTION = "Which of <image> and <image> is better? Answer with 'Image 1 is better' or 'Image 2 is better'."
REASON = "<think>\nlooked at both\n</think>\n"


def better(number: int) -> int:
    """Return which picture of a pair is the better one."""
    return 1 + number * 7 % 3 % 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the pictures ``<number>-<side>.png``: the number in red, green in the better one."""
    for number in range(PAIRS):
        for side in (1, 2):
            colour = (number, 255 * (side == better(number)), side)
            Image.new("RGB", (8, 8), colour).save(tmp_path / f"{number}-{side}.png")
    return tmp_path


def judge(queries: Sequence[Query]) -> list[tuple[str]]:
    """Name the picture with the green in it, the other one of a pair it is wrong about; the order is the shown one."""
    texts = []
    for query in queries:
        with Image.open(query.chat.images[0].source) as picture:
            number, green, _ = np.asarray(picture)[0, 0]
        place = 1 if green else 2
        place = 3 - place if int(number) in WRONG else place
        texts.append((f"{REASON}<answer>Image {place} is better</answer>",))
    return texts


def measured(data: HeldOutData, *, swap: bool = True, **protocol: Any) -> float:
    """Return the share of right judgements, as ``evaluate`` finds it."""
    examples = labelled_pool(data, seed=0, swap=swap).examples
    assert len(examples) == PAIRS
    asked = replace(PROTOCOLS["urt"], **protocol)
    judgements = judge_pairs(examples, judge, protocol=asked, template=data.template)
    return summarize(judgements, seed=0).accuracy.value


def sources(number: int) -> list[str]:
    """Return the pictures of a pair."""
    return [f"{number}-{side}.png" for side in (1, 2)]


def as_problem(n: int) -> dict[str, Any]:
    return {"problem": QUESTION, "images": sources(n), "solution": f"Image {better(n)} is better"}


def as_conversation(n: int) -> dict[str, Any]:
    reply = f"{REASON}<answer>Image {better(n)} is better</answer>"
    return {
        "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": reply}],
        "images": sources(n),
    }


def as_messages(n: int) -> dict[str, Any]:
    first, second = sources(n)
    parts = [
        {"type": "text", "text": "Which of "},
        {"type": "image", "image": first},
        {"type": "text", "text": " and "},
        {"type": "image_url", "image_url": {"url": second}},
        {"type": "text", "text": "?"},
    ]
    reply = f"{REASON}<answer>Image {better(n)} is better</answer>"
    return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": reply}]}


def as_prompt(n: int) -> dict[str, Any]:
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Which?"}]
    turns = [{"role": "system", "content": "Judge."}, {"role": "user", "content": parts}]
    return {"prompt": turns, "images": sources(n), "solution": f"Image {better(n)} is better"}


def as_caption(n: int) -> dict[str, Any]:
    return {"caption": "a square", "images": sources(n), "label": better(n)}


def as_float(n: int) -> dict[str, Any]:
    return as_caption(n) | {"label": float(better(n))}


def as_system(n: int) -> dict[str, Any]:
    return as_caption(n) | {"system": "You judge pictures."}


def as_shares(n: int) -> dict[str, Any]:
    first, second = sources(n)
    return {"caption": "a square", "jpg_0": first, "jpg_1": second, "label_0": 2 - better(n)}


def as_second_share(n: int) -> dict[str, Any]:
    first, second = sources(n)
    return {"caption": "a square", "jpg_0": first, "jpg_1": second, "label_1": better(n) - 1}


def as_winner_first(n: int) -> dict[str, Any]:
    first, second = sources(n) if better(n) == 1 else sources(n)[::-1]
    return {"caption": "a square", "jpg_0": first, "jpg_1": second, "label_0": 1}


def as_cells(n: int) -> dict[str, Any]:
    return as_caption(n) | {"images": [{"bytes": None, "path": path} for path in sources(n)]}


FORMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "problem and solution": as_problem,
    "conversations": as_conversation,
    "messages of parts": as_messages,
    "a prompt of messages": as_prompt,
    "caption, images, label": as_caption,
    "label as 1.0": as_float,
    "with a system prompt": as_system,
    "jpg_0, jpg_1, label_0": as_shares,
    "jpg_0, jpg_1, label_1": as_second_share,
    "jpg_0, jpg_1, the winner first": as_winner_first,
    "cells of a picture table": as_cells,
}
FROM_ZERO: dict[str, Callable[[int], dict[str, Any]]] = {
    "label": lambda n: as_caption(n) | {"label": better(n) - 1},
    "label as 0.0": lambda n: as_caption(n) | {"label": float(better(n) - 1)},
    "solution": lambda n: as_caption(n) | {"label": None, "solution": f"Image {better(n) - 1} is better"},
}


def written(folder: Path, rows: Sequence[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
    """Write rows as lines."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_in_every_form_of_row(folder: Path, form: str, swap: bool) -> None:
    path = written(folder, [FORMS[form](n) for n in range(PAIRS)])
    assert measured(HeldOutData(path=str(path)), swap=swap) == pytest.approx(0.94)
    assert measured(HeldOutData(path=str(path)), swap=swap, orders="given") == pytest.approx(0.94)


@pytest.mark.parametrize("template", ["v1", "v2"])
@pytest.mark.parametrize("think", [True, False])
def test_in_every_wording(folder: Path, template: str, think: bool) -> None:
    path = written(folder, [as_caption(n) for n in range(PAIRS)])

    def direct(queries: Sequence[Query]) -> list[tuple[str]]:
        return [(text.removeprefix("" if think else REASON),) for (text,) in judge(queries)]

    data = HeldOutData(path=str(path), template=template)
    protocol = replace(PROTOCOLS["urt"], think=think)
    judged = judge_pairs(labelled_pool(data, seed=0).examples, direct, protocol=protocol, template=template)
    assert sum(judgement.correct for judgement in judged) / len(judged) == pytest.approx(0.94)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_in_any_order_of_rows_and_files(folder: Path, seed: int, ending: str) -> None:
    forms = list(FORMS.values())
    rows = [forms[n % len(forms)](n) for n in range(PAIRS)]
    random.Random(seed).shuffle(rows)
    shards = [rows[:11], rows[11:30], rows[30:]]
    for number, shard in enumerate(shards):
        path = written(folder, shard, f"{number}.{ending}")
        if ending == "json":
            path.write_text("\ufeff" + json.dumps(shard))
    order = random.Random(seed).sample(range(3), 3)
    (folder / "m.yaml").write_text("datasets:\n" + "".join(f"  - json_path: {n}.{ending}\n" for n in order))
    assert measured(HeldOutData(path=str(folder / "m.yaml"))) == pytest.approx(0.94)


@pytest.mark.parametrize("form", FROM_ZERO)
def test_a_source_from_0_is_refused_or_read_the_same_when_said_so(folder: Path, form: str) -> None:
    path = written(folder, [FROM_ZERO[form](n) for n in range(PAIRS)])
    with pytest.raises(BadInputError, match=r"labels count from 1 .*data\.first_label=0"):
        labelled_pool(HeldOutData(path=str(path)), seed=0)
    assert measured(HeldOutData(path=str(path), first_label=0)) == pytest.approx(0.94)
    rows = [FROM_ZERO[form](n) if n < PAIRS // 2 else as_caption(n) for n in range(PAIRS)]
    written(folder, rows[: PAIRS // 2], "zero.jsonl")
    written(folder, rows[PAIRS // 2 :], "one.jsonl")
    entries = "[{json_path: one.jsonl}, {json_path: zero.jsonl, first_label: 0}]"
    (folder / "m.yaml").write_text(f"datasets: {entries}")
    assert measured(HeldOutData(path=str(folder / "m.yaml"))) == pytest.approx(0.94)


def test_the_table_can_fail(folder: Path) -> None:
    path = written(folder, [as_caption(n) | {"label": 3 - better(n)} for n in range(PAIRS)])
    assert measured(HeldOutData(path=str(path))) == pytest.approx(0.06)
