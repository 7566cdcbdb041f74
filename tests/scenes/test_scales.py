import numpy as np
import pytest

from urt_jax.scenes.answers import QUESTIONS, levels_of
from urt_jax.scenes.scales import DIFFICULTY, HARD_MARGIN, SCALES, draw_meeting, meeting_table
from urt_jax.tasks import PAPER_TASKS, TASKS

DRAWN = tuple(scale.scores for scale in SCALES["image_gen"])
ANSWERED = [TASKS[name] for name in PAPER_TASKS if TASKS[name].answers]
LATTICES = [(DRAWN, True)] + [
    (levels_of(task.name, form), False) for task in ANSWERED for form in QUESTIONS[task.medium]
]


def chances(levels, drawn):
    """Return the triples and the chance of each (winner, loser) at the default difficulty."""
    table = 0.0
    for hard, share in ((True, DIFFICULTY), (False, 1 - DIFFICULTY)):
        triples, cumulated = meeting_table(levels, hard, drawn)
        table = table + share * np.diff(cumulated, prepend=0).reshape(len(triples), -1)
    return np.array(triples), table


def test_scores_fall_with_the_number_of_faults():
    words, quality, authenticity = SCALES["image_gen"]
    assert [words.score(count) for count in range(6)] == [9, 6, 4, 2, 2, 2]
    assert [quality.score(count) for count in range(3)] == [9, 7, 5]
    assert [authenticity.score(count) for count in range(3)] == [8, 5, 2]
    assert set(SCALES) == set(PAPER_TASKS)


def test_both_drawn_tasks_share_their_levels():
    assert tuple(scale.scores for scale in SCALES["video_gen"]) == DRAWN


@pytest.mark.parametrize(("levels", "drawn"), LATTICES)
def test_one_candidate_alone_says_little(levels, drawn):
    _, table = chances(levels, drawn)
    assert table.sum() == pytest.approx(1)
    best_guess = 0.5 * np.maximum(table.sum(1), table.sum(0)).sum()
    assert best_guess <= 0.595


@pytest.mark.parametrize(("levels", "drawn"), LATTICES)
def test_no_dimension_decides_alone_and_each_counts(levels, drawn):
    triples, table = chances(levels, drawn)
    for dimension in range(3):
        gain = triples[:, None, dimension] - triples[None, :, dimension]
        agreement = table[gain > 0].sum() + 0.5 * table[gain == 0].sum()
        assert 0.53 < agreement < 0.68


def test_what_shows_in_pixels_decides_less_where_pictures_are_drawn():
    def decided_by_the_last_two(drawn):
        triples, table = chances(DRAWN, drawn)
        rest = triples[:, 1] + triples[:, 2]
        return table[rest[:, None] > rest[None, :]].sum()

    assert decided_by_the_last_two(True) < decided_by_the_last_two(False) - 0.05


def test_margins_keep_to_the_difficulty_asked_for():
    rng = np.random.default_rng(0)
    for hard in (True, False):
        for _ in range(100):
            winner, loser = draw_meeting(rng, DRAWN, hard=hard, drawn=True)
            margin = sum(winner) - sum(loser)
            assert margin >= 1
            assert (margin <= HARD_MARGIN) == hard
