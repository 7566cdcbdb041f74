"""The reward for gold scores, by hand, in both orders, and named in the settings."""

from dataclasses import replace

import numpy as np

from urt_jax.rewards.gold import gold_scores
from urt_jax.rewards.user import load_reward
from urt_jax.scenes import make_example, write_reasoning

PAIR = make_example("image_gen", split="train", seed=3, index=0)
GOLD = {"Semantic consistency": (9, 6), "Aesthetics": (7, 9), "Authenticity": (8, 8)}
EXAMPLE = replace(PAIR, meta={**PAIR.meta, "scores": GOLD})
TEXT = (
    "<think>\n1. Semantic consistency: Image 1 (9/10) - a; Image 2 (4/10) - b\n"
    "2. Aesthetics: Image 1 (7/10) - a; Image 2 (9/10) - b\nTotal score:\nImage 1: 9+7=16\nImage 2: 4+9=13\n"
    "</think>\n<answer>Image 1 is better</answer>"
)


def test_exact_scores_are_counted_and_a_missing_dimension_has_none() -> None:
    assert gold_scores(text=TEXT, solution="", example=EXAMPLE) == 3 / 6
    assert gold_scores(text=TEXT.replace("(4/10)", "(6/10)"), solution="", example=EXAMPLE) == 4 / 6


def test_the_scores_of_the_other_order_belong_to_the_other_side() -> None:
    text = write_reasoning(PAIR, np.random.default_rng(0))
    assert gold_scores(text=text, solution="", example=PAIR) == 1.0
    shares = [gold_scores(text=text, solution="", example=example) for example in (EXAMPLE, EXAMPLE.swapped())]
    assert shares[0] != shares[1]


def test_without_a_verdict_it_is_0_and_without_gold_it_is_not_given() -> None:
    assert gold_scores(text=TEXT[:-3], solution="", example=EXAMPLE) == 0.0
    assert gold_scores(text=TEXT, solution="", example=replace(PAIR, meta={})) is None


def test_it_can_be_named_in_the_settings() -> None:
    assert load_reward("urt_jax.rewards.gold:gold_scores").function is gold_scores
