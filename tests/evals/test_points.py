"""Rank correlations of scores with gold scores, their intervals and their table."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from urt_jax.errors import BadInputError
from urt_jax.evals.points import MEAN, Scored, as_plain, correlations, point_rows, read_scored, scored, write_scored
from urt_jax.judge.scoring import Score
from urt_jax.scenes import make_example


def items(count: int = 200, *, noise: float = 1.0) -> list[Scored]:
    rng = np.random.default_rng(0)
    made = []
    for n in range(count):
        gold = {"A": float(rng.integers(1, 6)), "B": float(rng.integers(1, 6))}
        given = {name: value + noise * rng.standard_normal() for name, value in gold.items()}
        written = {name: float(round(value)) for name, value in given.items()}
        made.append(Scored(str(n), "image_score", gold, written, given, None, ""))
    return made


def test_it_is_spearmans_correlation_with_ties() -> None:
    made = items()
    found = correlations(made)
    assert list(found) == ["A", "B", MEAN]
    for kind in ("written", "expected"):
        wanted = spearmanr([x.gold["A"] for x in made], [getattr(x, kind)["A"] for x in made]).statistic
        estimate = found["A"][kind]
        assert estimate.value == pytest.approx(wanted)
        assert estimate.low < wanted < estimate.high
        assert 0.02 < estimate.high - estimate.low < 0.2
    means = spearmanr([sum(x.gold.values()) for x in made], [sum(x.expected.values()) for x in made]).statistic
    assert found[MEAN]["expected"].value == pytest.approx(means)
    assert correlations(items(noise=0.0))["A"]["expected"].value == pytest.approx(1)


def test_what_does_not_parse_is_counted_and_left_out() -> None:
    made = [*items(20), Scored("x", "image_score", {"A": 1.0, "B": 2.0}, {}, {}, "no <answer>", "")]
    (row, *_) = point_rows("judge", "direct", made)
    assert (row["items"], row["unparsed"]) == (21, 1)
    assert correlations(made) == correlations(made[:-1])
    assert as_plain(made)["unparsed"] == 1
    (only,) = point_rows("judge", "direct", made[-1:])
    assert (only["axis"], only["Spearman, written"], only["unparsed"]) == ("no reply parses", "–", 1)


def test_a_constant_judge_has_no_correlation() -> None:
    made = [Scored(str(n), "t", {"A": float(n)}, {"A": 3.0}, {"A": 3.0}, None, "") for n in range(9)]
    assert math.isnan(correlations(made)["A"]["written"].value)
    assert str(correlations(made)["A"]["written"]) == "–"


def test_they_come_back_as_written_and_need_gold_scores(tmp_path: Path) -> None:
    write_scored(tmp_path / "x.jsonl", items(5))
    assert read_scored(tmp_path / "x.jsonl") == items(5)
    example = make_example("image_score", split="heldout", seed=0, index=0)
    score = Score({"Alignment": 3.0}, {"Alignment": 3.2}, "", "text", None)
    assert scored([example], [score])[0].expected == {"Alignment": 3.2}
    with pytest.raises(BadInputError, match="it has no gold score for Charm"):
        scored([example], [Score({"Charm": 3.0}, {"Charm": 3.2}, "", "", None)])
