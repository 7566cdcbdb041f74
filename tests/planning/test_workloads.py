"""Workloads are what they say: sizes, lengths, and nothing that ends a response."""

import typing

import numpy as np
import pytest

from urt_jax.config import BenchConfig
from urt_jax.models.vlm import abstract_params
from urt_jax.planning.workloads import (
    SIZES,
    RowCounts,
    Workload,
    blank_processor,
    encode,
    random_ids,
    random_pictures,
    suppressed_ids,
    workload,
)


def parameters(size: str) -> float:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(workload(size).config)))


def test_sizes_are_those_of_the_config() -> None:
    hint = typing.get_type_hints(BenchConfig)["sizes"]
    assert typing.get_args(typing.get_args(hint)[0]) == SIZES


def test_small_has_about_60_million_parameters() -> None:
    assert 60e6 < parameters("small") < 65e6
    assert parameters("3b") == pytest.approx(3.75e9, rel=0.01)


@pytest.mark.parametrize("size", SIZES)
def test_a_prompt_has_the_length_it_is_said_to_have(size: str) -> None:
    work, rng = workload(size), np.random.default_rng(0)
    chat = encode(work, random_ids(work, rng, (work.text_tokens(),)), random_pictures(work, rng, 1)[0], name="x")
    assert len(chat.tokens_T) == work.rows.prompt_tokens
    assert len(chat.frames) == work.rows.pictures
    assert set(chat.tokens_T[chat.vision_T2[:, 0] >= 0]) == {work.config.image_token_id}


def test_random_words_are_never_special() -> None:
    work = workload("toy")
    words = random_ids(work, np.random.default_rng(0), (5000,))
    assert not set(words.tolist()) & set(suppressed_ids(work.config))
    assert len(set(words.tolist())) == work.config.decoder.vocab_size - len(suppressed_ids(work.config))


def test_nothing_ends_a_response_of_a_blank_processor() -> None:
    processor = blank_processor(workload("toy").config)
    assert processor.end_ids == ()
    assert processor.suppressed_ids == (0, 1, 2, 3, 4, 5)
    assert processor.tokenizer.batch_decode([[7, 9]], skip_special_tokens=True) == ["w7 w9"]


def test_pictures_that_fill_the_prompt_are_refused() -> None:
    work = Workload(workload("toy").config, RowCounts(1, 2, 12, 2, 56, 4, sft_rows=1))
    with pytest.raises(ValueError, match="2 pictures of 56 pixels per side take 12 tokens, the prompt has 12"):
        work.text_tokens()
