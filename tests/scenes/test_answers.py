import numpy as np
import pytest

from urt_jax.scenes.answers import FILLERS, QUESTIONS, levels_of, write_answer
from urt_jax.scenes.world import CATEGORY_OF, KINDS

WORDS = ["red", "circle", "left of", "blue", "square"]
WHERE = QUESTIONS["image"][0]


def test_question_and_answer_speak_of_the_scene():
    assert WHERE.text.format(*WORDS) == "where is the red circle?"
    assert "the red circle is left of the blue square" in write_answer(np.random.default_rng(0), WHERE, WORDS, [])


@pytest.mark.parametrize("form", [form for forms in QUESTIONS.values() for form in forms])
def test_forms_name_and_ask_for_different_words_that_the_answer_holds(form):
    assert not set(form.named) & set(form.asked)
    for slot in (*form.named, *form.asked):
        assert slot < len(KINDS[form.kind].slots)
        assert f"{{{slot}}}" in form.answer
    assert all(f"{{{slot}}}" in form.text for slot in form.named)
    assert not any(f"{{{slot}}}" in form.text for slot in form.asked)


def test_fillers_are_as_long_as_they_say():
    for count, pairs in FILLERS.items():
        assert all(len(f"{before} {after}".split()) == count for before, after in pairs)


@pytest.mark.parametrize("clarity", [["scrambled"], ["stammering"], ["scrambled", "stammering"]])
def test_faults_of_clarity_keep_the_length_and_the_order_of_what_is_said(clarity):
    for seed in range(20):
        clear = write_answer(np.random.default_rng(seed), WHERE, WORDS, [])
        faulty = write_answer(np.random.default_rng(seed), WHERE, WORDS, clarity)
        assert faulty != clear
        assert len(faulty.split()) == len(clear.split())
        assert len(faulty) == len(clear)
        places = [faulty.split().index(word) for word in ("red", "circle", "blue", "square")]
        assert places == sorted(places)


def test_stammers_are_no_words_of_any_other_kind():
    stammer = write_answer(np.random.default_rng(0), WHERE, WORDS, ["stammering"])
    assert any(set(word) <= {"u", "m"} for word in stammer.split())
    assert not any(set(word) <= {"u", "m"} for word in CATEGORY_OF)


def test_levels_end_where_no_more_words_can_be_wrong():
    assert levels_of("image_und", WHERE) == ((9, 6, 4), (9, 6, 4, 2), (8, 5, 2))
