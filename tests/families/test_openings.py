"""Chat templates that open or close <think> themselves: what the prompt says of a reply is parsed and not learnt."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import write_judge
from urt_jax import RewardModel
from urt_jax.checkpoints.model_folder import load_processor
from urt_jax.data.examples import Example, Media, Query
from urt_jax.data.prompts import render
from urt_jax.data.tokenizer import chat_text, opening_of
from urt_jax.errors import BadInputError
from urt_jax.families.processor import Processor, encode_chat, encode_response
from urt_jax.feeds.encoder import Encoder
from urt_jax.generation.sampler import Sampler
from urt_jax.generation.sampling import Sampling
from urt_jax.generation.vocabulary import decode_texts
from urt_jax.rewards.verifiable import format_reward
from urt_jax.scenes import make_example
from urt_jax.tasks.replies import parse

OPEN, BARE, EMPTY = "<think>\n", "<think>", "<think>\n\n</think>\n\n"
HYBRID = "{% if enable_thinking is defined and not enable_thinking %}" + EMPTY + "{% else %}" + OPEN + "{% endif %}"
CLOSING = "{% if enable_thinking is defined and not enable_thinking %}" + EMPTY + "{% endif %}"
OPTING = "{% if enable_thinking is defined and enable_thinking %}" + OPEN + "{% else %}" + EMPTY + "{% endif %}"
# What each template ends with for (reasoning asked for, an answer alone, nothing said).
TEMPLATES = {
    "": ("", "", ""),
    OPEN: (OPEN, EMPTY, OPEN),
    BARE: (BARE, EMPTY, BARE),
    EMPTY: (EMPTY, EMPTY, EMPTY),
    HYBRID: (OPEN, EMPTY, OPEN),
    CLOSING: ("", EMPTY, ""),
    OPTING: (OPEN, EMPTY, EMPTY),
}
THOUGHTS, ANSWER = "I look.\n</think>\n", "<answer>Image 1 is better</answer>"
REPLY = f"<think>\n{THOUGHTS}{ANSWER}"
PAIR = Example("p", "image_gen", "a cat", (), tuple(Media("image", np.zeros((56, 56, 3), np.uint8)) for _ in "ab"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives the folder of a small judge whose prompts end so."""
    first = write_judge(tmp_path_factory.mktemp("judge") / "judge")
    made: dict[str, Path] = {}

    def of(opening: str) -> Path:
        if opening not in made:
            made[opening] = tmp_path_factory.mktemp("opened") / "judge"
            shutil.copytree(first, made[opening], ignore=shutil.ignore_patterns("checksums.json"))
            file = made[opening] / "chat_template.jinja"
            head = "{{- '<|im_start|>assistant\\n' -}}\n"
            source = file.read_text()
            assert head in source
            told = opening.replace(EMPTY, f"{{{{ {EMPTY!r} }}}}").replace(OPEN, f"{{{{ {OPEN!r} }}}}")
            file.write_text(source.replace(head, head.rstrip("\n") + told + "\n"))
        return made[opening]

    return of


@pytest.fixture(params=TEMPLATES, ids=lambda opening: opening.replace("\n", "|")[:40])
def opening(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def processor(opened: Callable[[str], Path], opening: str) -> Processor:
    return load_processor(str(opened(opening)))[0]


def text_of(processor: Processor, ids: Any) -> str:
    return str(processor.tokenizer.decode(ids))


def test_what_a_prompt_ends_with_is_known(processor: Processor, opening: str) -> None:
    for think, expected in zip((True, False, None), TEMPLATES[opening]):
        chat = replace(render(PAIR), think=think)
        encoded = encode_chat(processor, chat, name="r")
        assert encoded.opening == expected
        assert text_of(processor, encoded.tokens_T).endswith("assistant\n" + expected)
        assert chat_text(processor.tokenizer, chat).endswith("assistant\n" + expected)
    closed = encode_chat(processor, render(PAIR), name="r", generation_prompt=False)
    assert closed.opening == ""


@pytest.mark.parametrize("think", [True, False])
def test_prompt_and_response_are_one_reply(
    processor: Processor, opened: Callable[[str], Path], opening: str, think: bool
) -> None:
    reply = REPLY if think else ANSWER
    example = replace(PAIR, response=reply, label=1)
    encoder = Encoder(processor, max_prompt_tokens=512, max_new_tokens=128)
    if think and "</think>" in TEMPLATES[opening][0]:
        with pytest.raises(BadInputError, match=r"record p: the chat template ends the prompt with '<think>\\n\\n"):
            encoder.trained(example, template="v1")
        return
    learnt = encoder.trained(example, template="v1")
    whole = text_of(processor, [*learnt.chat.tokens_T, *learnt.response])
    said = whole.rpartition("assistant\n")[2]
    assert said.count("<think>") <= 1
    assert said.count("<|im_end|>") == 1
    assert parse(said, think=think).winner == 1
    if not opening:
        assert text_of(processor, learnt.response) == reply + "<|im_end|>"


@pytest.mark.parametrize(
    ("begins", "response", "left"),
    [
        (OPEN, REPLY, THOUGHTS + ANSWER),
        (OPEN, "\n" + REPLY, THOUGHTS + ANSWER),
        (OPEN, "<think>" + THOUGHTS + ANSWER, THOUGHTS + ANSWER),
        (OPEN, THOUGHTS + ANSWER, THOUGHTS + ANSWER),
        (BARE, REPLY, "\n" + THOUGHTS + ANSWER),
        (EMPTY, EMPTY + ANSWER, ANSWER),
        (EMPTY, "<think>\n\n</think>\n" + ANSWER, "\n" + ANSWER),
        (EMPTY, ANSWER, ANSWER),
        ("", REPLY, REPLY),
        ("", EMPTY + ANSWER, EMPTY + ANSWER),
    ],
)
def test_what_is_left_to_learn(opened: Callable[[str], Path], begins: str, response: str, left: str) -> None:
    processor = load_processor(str(opened("")))[0]
    assert text_of(processor, encode_response(processor, response, name="r", opening=begins)) == left + "<|im_end|>"


@pytest.mark.parametrize("response", ["Well. " + REPLY, "<think>\na</think><think>" + THOUGHTS, REPLY + REPLY])
def test_a_second_opening_is_refused(opened: Callable[[str], Path], response: str) -> None:
    processor = load_processor(str(opened("")))[0]
    with pytest.raises(BadInputError, match=r"r: the chat template ends the prompt with '<think>\\n' and the response"):
        encode_response(processor, response, name="r", opening=OPEN)


def test_sampled_texts_start_with_what_their_prompt_opened(opened: Callable[[str], Path]) -> None:
    judge = RewardModel.load(str(opened(OPEN)))
    texts = judge.respond(
        [Query("a", render(PAIR)), Query("b", render(PAIR, think=False))], temperature=1.0, seed=0, max_new_tokens=4
    )
    assert [opening_of(text[: len(EMPTY)]) or opening_of(text[: len(OPEN)]) for (text,) in texts] == [EMPTY, OPEN][::-1]
    chats = [encode_chat(judge.processor, render(PAIR), name="r")] * 2
    told: list[str] = []
    found = Sampler(judge.responder.model, judge.processor).sample(
        judge.params,
        chats,
        ["a", "b"],
        bucket=judge.responder._bucket(chats),
        responses=3,
        sampling=Sampling(),
        slots=4,
        seed=0,
        finished=lambda done: told.extend(done.texts),
    )
    assert len(found.texts) == 6
    assert all(text.startswith(OPEN) for text in (*found.texts, *told))
    assert sorted(told) == sorted(found.texts)


def test_a_verdict_is_read_from_the_opening_on(opened: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge is made to write what a judge of this template writes: its reply without the opening."""
    for opening, replies in (
        (OPEN, (THOUGHTS + ANSWER, ANSWER)),
        (EMPTY, (ANSWER, ANSWER)),
        (CLOSING, (REPLY, ANSWER)),
    ):
        judge = RewardModel.load(str(opened(opening)))
        for think, reply in zip((True, False), replies):
            written = judge.processor.tokenizer(reply, add_special_tokens=False)["input_ids"]

            def decoded(processor: Processor, tokens: Any, mask: Any, openings: Any = (), ids: Any = written) -> Any:
                tokens = np.array([ids] * len(tokens))
                return decode_texts(processor, tokens, np.ones_like(tokens, bool), openings)

            monkeypatch.setattr("urt_jax.generation.sampler.decode_texts", decoded)
            images = [item.source for item in PAIR.candidates if isinstance(item, Media)]
            found = judge.compare(caption="a cat", images=images, think=think, max_new_tokens=2)
            assert (found.winner, found.failure) == (1, None)
            assert found.reasoning == ("I look." if think and opening != EMPTY else "")
            assert not think or format_reward(found.text) == 1


def test_the_format_reward_can_be_earned(opened: Callable[[str], Path]) -> None:
    from urt_jax.training.rollout import Scoring, score_texts

    question = make_example("image_gen", split="train", seed=0, index=0)
    texts = [OPEN + THOUGHTS + ANSWER] * 2
    assert score_texts(texts, [3, 3], [question], Scoring())["format"].tolist() == [[1.0, 1.0]]


def test_no_template_opens_where_a_text_only_ends_so() -> None:
    assert opening_of("assistant\n") == ""
    assert opening_of("<think>\nmore") == ""
    assert opening_of("assistant\n<think>\n \n") == "<think>\n \n"
    assert opening_of("<think>\nno</think>\n") == ""
