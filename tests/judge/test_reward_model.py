"""The Python API on a very small judge: what it returns, what it refuses, and what its answers do not depend on."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.rewards.test_votes import verdict
from urt_jax import RewardModel
from urt_jax.data.comparisons import make_pair
from urt_jax.data.examples import Chat, Example, Media, Query
from urt_jax.errors import BadInputError
from urt_jax.judge import responder
from urt_jax.scenes import make_example

TOKENS = 8
RED, GREEN, BLUE = (np.full((56, 56, 3), colour, np.uint8) for colour in ([200, 0, 0], [0, 200, 0], [0, 0, 200]))


@pytest.fixture(scope="module")
def judge(tiny_judge: Path) -> RewardModel:
    return RewardModel.load(str(tiny_judge))


@pytest.fixture(scope="module")
def pairs() -> list[Example]:
    return [make_example("image_gen", split="heldout", seed=0, index=index) for index in range(3)]


def say(judge: RewardModel, monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[Query]:
    """Let ``answer(query)`` write the texts in place of the random model; return the queries it was given."""
    asked: list[Query] = []

    def respond(queries: list[Query], *, responses: int = 1, **settings: Any) -> list[list[str]]:
        asked.extend(queries)
        return [[answer(query)] * responses for query in queries]

    monkeypatch.setattr(judge, "respond", respond)
    return asked


def brightest(query: Query) -> str:
    """Judge by the mean colour of the pictures."""
    first, second = (float(np.mean(media.source)) / 30 for media in query.chat.images)
    return verdict(round(first, 1), round(second, 1))


def test_compare_gives_a_verdict_with_the_text_it_was_read_from(judge: RewardModel) -> None:
    found = judge.compare(caption="a red square", images=(RED, BLUE), max_new_tokens=TOKENS)
    assert found.winner is None
    assert found.failure
    assert found.text
    assert found == judge.compare(caption="a red square", images=(RED, BLUE), max_new_tokens=TOKENS)


def test_every_way_of_judging_asks_in_the_wording_of_the_judge(
    judge: RewardModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("Mine: {caption}")
    worded = {
        template: RewardModel(judge.loaded, prompt_template=template)
        for template in ("v1", "v2", tmp_path / "mine.txt")
    }
    starts = []
    for other in worded.values():
        asked = say(other, monkeypatch, brightest)
        other.compare(caption="x", images=(RED, BLUE))
        other.compare_many([make_example("image_gen", split="heldout", seed=0, index=0)])
        other.rank(caption="x", candidates=[RED, BLUE])
        texts = [query.chat.messages[0]["content"][-1]["text"] for query in asked]
        assert len(texts) == 4
        starts.append([text.replace("caption: x\n", "").split()[0] for text in (texts[0], texts[2], texts[3])])
    assert starts == [["Compare"] * 3, ["You"] * 3, ["Mine:"] * 3]
    assert judge.prompt_template == "v1"


def test_a_template_that_is_not_there_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(BadInputError, match=r"prompt template 'v9': neither .*; did you mean 'v[12]'"):
        RewardModel.load("no-such-model", prompt_template="v9")


def test_batch_size_does_not_change_answers(judge: RewardModel, pairs: list[Example]) -> None:
    told: list[tuple[int, int]] = []
    settings: dict[str, Any] = {"max_new_tokens": TOKENS, "temperature": 1.5, "seed": 3}
    together = judge.compare_many(pairs, **settings, batch_size=3)
    single = judge.compare_many(pairs, **settings, batch_size=2, progress=lambda n, of: told.append((n, of)))
    assert [v.text for v in single] == [v.text for v in together]
    assert told == [(2, 3), (3, 3)]
    assert len({v.text for v in together}) == 3
    other = judge.compare_many(pairs, **{**settings, "seed": 4}, batch_size=3)
    assert [v.text for v in other] != [v.text for v in together]


def test_pictures_that_would_fill_the_memory_are_answered_some_batches_at_a_time(
    judge: RewardModel, pairs: list[Example], tiny_judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"order": "both", "max_new_tokens": TOKENS, "batch_size": 2}
    told: list[tuple[int, int]] = []
    whole = judge.compare_many(pairs, progress=lambda *done: told.append(done), **settings)
    monkeypatch.setattr(responder, "HELD_BYTES", 1)
    shapes: list[int] = []
    asked = judge.responder
    planned = asked._shapes
    monkeypatch.setattr(asked, "_shapes", lambda needs, **how: shapes.append(len(needs)) or planned(needs, **how))
    assert judge.compare_many(pairs, **settings) == whole
    assert shapes == [1, 1, 1]
    assert told == [(2, 6), (4, 6), (6, 6)]
    with closing(RewardModel.load(str(tiny_judge), workers=1)) as working:
        assert working.compare_many(pairs, **settings) == whole


def test_nothing_asked_is_nothing_answered(judge: RewardModel) -> None:
    assert judge.compare_many([]) == []


def test_both_orders_and_votes_are_asked_under_names_of_their_own(
    judge: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = say(judge, monkeypatch, brightest)
    white = np.full((56, 56, 3), 250, np.uint8)
    found = judge.compare(caption="x", images=(RED, white), order="both", votes=2, temperature=1.0)
    assert [query.id for query in asked] == ["pair", "pair#swapped"]
    assert found.winner == 2
    assert found.margin == pytest.approx(2.2 - 8.3)
    assert found.totals == (2.2, 8.3), "in the given order"


def test_a_judge_that_always_names_the_first_decides_nothing_in_both_orders(
    judge: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(judge, monkeypatch, lambda query: verdict(9, 3))
    assert judge.compare(caption="x", images=(RED, BLUE)).winner == 1
    found = judge.compare(caption="x", images=(RED, BLUE), order="both")
    assert (found.winner, found.margin) == (None, 0.0)
    assert found.failure == "the votes are drawn: 1 for 1, 1 for 2"


def test_ranking_by_hand(judge: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = say(judge, monkeypatch, brightest)
    shades = [np.full((56, 56, 3), level, np.uint8) for level in (120, 30, 210)]
    found = judge.rank(caption="x", candidates=shades)
    assert found.order == (2, 0, 1)
    assert found.win_rate == (0.5, 0.0, 1.0)
    assert len(asked) == len(found.verdicts) == 6
    assert judge.rank(caption="x", candidates=shades, order="given").win_rate == (0.5, 0.0, 1.0)


def test_a_judgement_that_does_not_parse_is_half_a_win(judge: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    say(judge, monkeypatch, lambda query: "hm" if query.id == "0-1" else brightest(query))
    shades = [np.full((56, 56, 3), level, np.uint8) for level in (30, 120, 210)]
    found = judge.rank(caption="x", candidates=shades)
    assert found.win_rate == (0.25, 0.25, 1.0)
    assert found.order == (2, 0, 1), "equal rates keep the given order"


def test_logits_have_a_row_for_every_prompt_token(judge: RewardModel) -> None:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "which colour?"}]}]
    found = judge.logits(messages=messages, images=[RED])
    assert found.dtype == np.float32
    assert found.shape[1] == judge.processor.config.decoder.vocab_size
    text = judge.processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert len(found) == len(judge.processor.tokenizer(text)["input_ids"]) + 3, "4 merged patches for 1 placeholder"
    other = judge.logits(messages=messages, images=[BLUE])
    assert np.abs(found - other)[-1].max() > 0
    assert np.abs(found - other)[:3].max() == 0, "before the picture nothing changes"


def test_greedy_generation_starts_with_the_largest_logit(judge: RewardModel) -> None:
    messages = [{"role": "user", "content": "which colour?"}]
    logits = judge.logits(messages=messages)[-1].copy()
    logits[list(judge.processor.suppressed_ids)] = -np.inf
    ids = judge.generate(messages=messages, max_new_tokens=TOKENS)
    assert ids[0] == int(logits.argmax())
    assert 1 <= len(ids) <= TOKENS
    assert not set(ids) & set(judge.processor.suppressed_ids)


def test_a_clip_is_an_array_of_frames_or_media_with_its_rate(judge: RewardModel) -> None:
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what moves?"}]}]
    clip = np.stack([RED, GREEN, BLUE, RED, GREEN, BLUE])
    plain = judge.logits(messages=messages, videos=[clip])
    slow = judge.logits(messages=messages, videos=[Media("video", clip, 0.5)])
    assert plain.shape == slow.shape
    assert np.abs(plain - slow).max() > 0, "the rate moves temporal positions"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"caption": "x"}, "candidates were given as nothing; give caption="),
        ({"caption": "x", "images": [RED, BLUE], "videos": [RED, BLUE]}, "given as images, videos; give"),
        ({"caption": "x", "images": [RED]}, "images holds 1 candidates; compare takes 2, rank takes any number"),
        ({"images": [RED, BLUE]}, "images came with caption=None"),
        ({"caption": "x", "answers": ["a", "b"], "context": "c.png"}, "answers came with caption='x', question=None"),
        ({"question": "x", "answers": ["a", "b"]}, "answers came with .*context=None"),
        ({"caption": "x", "images": [RED, BLUE], "context": "c.png"}, "images came with .*context='c.png'"),
        ({"caption": "x", "images": [RED, BLUE], "votes": 3}, "votes=3 at temperature 0"),
        ({"caption": "x", "images": [RED, BLUE], "votes": 0, "temperature": 1.0}, "votes=0"),
    ],
)
def test_arguments_that_name_no_task_are_refused(judge: RewardModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        judge.compare(**arguments)


def test_one_candidate_has_no_rank(judge: RewardModel) -> None:
    with pytest.raises(BadInputError, match="rank needs at least two candidates, got 1"):
        judge.rank(caption="x", candidates=[RED])


def test_a_prompt_beyond_the_limit_is_refused_by_record(tiny_judge: Path, judge: RewardModel) -> None:
    short = RewardModel(judge.loaded, max_prompt_tokens=16)
    with pytest.raises(BadInputError, match=r"pair: the prompt has .* max_prompt_tokens is 16"):
        short.compare(caption="x", images=(RED, BLUE))


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        ({"caption": "c", "images": ["a.png", "b.png"]}, "image_gen"),
        ({"caption": "c", "videos": [["1.png"], ["2.png"]]}, "video_gen"),
        ({"question": "q", "answers": ["yes", "no"], "context": RED}, "image_und"),
        ({"question": "q", "answers": ["yes", "no"], "context": np.stack([RED, RED])}, "video_und"),
    ],
)
def test_arguments_name_the_task(arguments: dict[str, Any], task: str) -> None:
    blank: dict[str, Any] = dict.fromkeys(("caption", "question", "images", "videos", "answers"))
    example = make_pair(**{**blank, **arguments})
    assert example.task == task
    assert example.prompt == arguments.get("caption", arguments.get("question"))
    assert len(example.candidates) == 2


def test_the_length_of_answers_is_the_models_own_where_it_names_one(judge: RewardModel, tmp_path: Path) -> None:
    assert judge.max_new_tokens == 1024
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 77, "temperature": 0.1}')
    assert RewardModel(replace(judge.loaded, folder=tmp_path)).max_new_tokens == 77


def test_responses_to_one_question_differ_by_their_number(judge: RewardModel) -> None:
    chat = Chat([{"role": "user", "content": "which colour?"}])
    queries = [Query("q", chat), Query("p", chat), Query("q", chat)]
    first, other, again = judge.respond(queries, responses=2, temperature=2.0, seed=0, max_new_tokens=TOKENS)
    assert first == again != other
    assert first[0] != first[1]


def test_dtype_and_attention_are_those_of_the_device(judge: RewardModel) -> None:
    assert (judge.responder.model.dtype, judge.responder.model.attention) == (np.float32, "xla")
    half = RewardModel(judge.loaded, dtype="bfloat16", attention="xla")
    assert half.responder.model.dtype == jax.numpy.bfloat16
    with pytest.raises(BadInputError, match=r"attention: 'splash' runs on a tpu only, this is a cpu; give 'auto' or"):
        RewardModel(judge.loaded, attention="splash")


def test_importing_the_package_starts_no_device() -> None:
    import subprocess
    import sys

    code = "import sys, urt_jax; assert 'jax' not in sys.modules, 'jax was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert jax.devices()
