import numpy as np
import pytest

from urt_jax.errors import BadInputError
from urt_jax.scenes.world import (
    CATEGORIES,
    CATEGORY_OF,
    DRILL_WORDS,
    KINDS,
    UNSEEN,
    Lexicon,
    caption_of,
    colour_shapes,
    draw_words,
    has_unseen,
    make_generator,
    reads_one_way,
    spoil,
)


def test_every_word_has_one_category():
    assert len(CATEGORY_OF) == sum(len(words) for known in (CATEGORIES, DRILL_WORDS) for words in known.values())
    assert [f"{word}s" for word in DRILL_WORDS["shape"]] == list(DRILL_WORDS["shapes"])


def test_captions_read_as_written():
    assert caption_of("sized", ["large", "red", "circle"]) == "a large red circle"
    assert (
        caption_of("relation", ["red", "circle", "left of", "blue", "square"]) == "a red circle left of a blue square"
    )
    assert caption_of("count", ["three", "red", "circles"]) == "three red circles"
    assert caption_of("moving", ["red", "circle", "moves right"]) == "a red circle moves right"


def test_plural_shapes_count_as_the_shape():
    assert colour_shapes(["three", "purple", "triangles"]) == [("purple", "triangle")]
    assert has_unseen(["three", "purple", "triangles"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_drawn_words_hold_an_unseen_pair_only_when_asked(kind, unseen, wide):
    rng = np.random.default_rng(0)
    drawn = [draw_words(rng, kind, Lexicon(unseen, wide)) for _ in range(50)]
    for words in drawn:
        assert bool(UNSEEN & set(colour_shapes(words))) == unseen
        assert [CATEGORY_OF[word] for word in words] == list(KINDS[kind].slots)
    of_drills = {word for words in DRILL_WORDS.values() for word in words}
    assert any(of_drills & set(words) for words in drawn) == wide or (unseen and len(KINDS[kind].slots) < 5)


def test_spoil_replaces_exactly_so_many_words_and_shows_no_unseen_pair():
    rng = np.random.default_rng(0)
    for wrong in range(4):
        for _ in range(50):
            words = draw_words(rng, "relation", Lexicon(unseen=False))
            spoiled = spoil(rng, "relation", words, wrong, slots=tuple(range(5)), lexicon=Lexicon(unseen=False))
            assert sum(a != b for a, b in zip(words, spoiled)) == wrong
            assert not has_unseen(spoiled)
            assert spoiled[:2] != spoiled[3:]


def test_a_picture_told_from_its_other_thing_must_be_further_from_the_caption():
    words = ["red", "circle", "left of", "blue", "square"]
    assert reads_one_way(words, ["red", "circle", "right of", "blue", "square"])
    # Told from the other thing this is "red circle left of green square": one word wrong, not four.
    assert not reads_one_way(words, ["green", "square", "right of", "red", "circle"])


def test_streams_differ_by_split_seed_index_and_name():
    def draw(split="train", seed=0, index=0, stream="a"):
        return float(make_generator(split, seed=seed, index=index, stream=stream).random())

    values = [draw(), draw(split="heldout"), draw(seed=1), draw(index=1), draw(stream="b")]
    assert len(set(values)) == len(values)
    assert draw() == values[0]


def test_unknown_split_and_negative_index_are_refused_by_name():
    with pytest.raises(
        BadInputError, match=r"split 'held-out' is unknown; did you mean 'heldout'\? known: train, heldout"
    ):
        make_generator("held-out", seed=0, index=0, stream="a")
    with pytest.raises(BadInputError, match="0 or more, got seed=0, index=-1"):
        make_generator("train", seed=0, index=-1, stream="a")
