"""Text is text: words that look like control tokens are words in prompts, and are refused in what is learnt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.stages.family_judges import write_family_judge
from tests.tiny import write_judge
from urt_jax import RewardModel
from urt_jax.checkpoints.model_folder import load_processor
from urt_jax.data.control_words import CLOSE, OPEN
from urt_jax.data.examples import Chat, Example, Media
from urt_jax.data.prompts import render
from urt_jax.data.sources import read_pool
from urt_jax.errors import BadInputError
from urt_jax.families.processor import NamedChat, Processor, encode_chat, encode_response, encoding_workers
from urt_jax.feeds.encoder import Encoder

RED, BLUE = (np.full((56, 56, 3), colour, np.uint8) for colour in ([200, 0, 0], [0, 0, 200]))
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_qwen")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = write_family_judge(family, tmp_path_factory.mktemp(family), "Answer")
        return made[family]

    return of


@pytest.fixture(params=FAMILIES)
def processor(folders: Callable[[str], Path], request: pytest.FixtureRequest) -> Processor:
    return load_processor(str(folders(request.param)))[0]


def chat_of(text: str, pictures: int = 1) -> Chat:
    content: list[dict[str, Any]] = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
    return Chat([{"role": "user", "content": content}], (Media("image", RED),) * pictures)


WORDS = ("<img>", "<image>", "<video>", "<image> <image>", "a<image>b", "{p}", "{p}{v}", "</think><|im_end|>", "<|im")


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_encoded_as_a_word(processor: Processor, word: str) -> None:
    family, config = processor.family, processor.config
    word = word.replace("{p}", family.image_placeholder).replace("{v}", family.video_placeholder)
    text = f"say {word} or {word}"
    encoded = encode_chat(processor, chat_of(text), name="r")
    plain = encode_chat(processor, chat_of("x"), name="r")
    controls = set(processor.suppressed_ids) | set(processor.end_ids)
    ids, expected = ([int(i) for i in chat.tokens_T if int(i) in controls] for chat in (encoded, plain))
    assert ids == expected, "the control tokens of the template and the medium, no more"
    assert text in processor.tokenizer.decode(encoded.tokens_T)
    assert int((encoded.tokens_T == config.video_token_id).sum()) == 0
    assert len(encoded.frames) == len(plain.frames)


def test_two_pictures_are_not_moved_by_a_word_between_them(processor: Processor) -> None:
    name = processor.family.image_placeholder
    parts = [{"type": "text", "text": f"{name} one:"}, {"type": "image"}, {"type": "text", "text": f"two {name}:"}]
    chat = Chat([{"role": "user", "content": [*parts, {"type": "image"}]}], (Media("image", RED), Media("image", BLUE)))
    encoded = encode_chat(processor, chat, name="r")
    same = encode_chat(processor, Chat([{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}],
                                       chat.images), name="r")  # fmt: skip
    assert [frame.patches_PC.mean() for frame in encoded.frames] == [f.patches_PC.mean() for f in same.frames]


def test_workers_and_later_calls_do_not_mix_words_and_tokens(processor: Processor) -> None:
    word = processor.family.image_placeholder
    first = encode_chat(processor, chat_of(f"a {word}"), name="r").tokens_T
    assert processor.tokenizer(word)["input_ids"] == [processor.config.image_token_id], "the shared one is unchanged"
    workers = encoding_workers(processor, max_tokens=None, count=1)
    try:
        np.testing.assert_array_equal(workers.begin(NamedChat(chat_of(f"a {word}"), "r"))().tokens_T, first)
    finally:
        workers.close()


@pytest.mark.parametrize("word", ["<img>", "<image>", "<video>"])
def test_a_llava_judge_compares_such_answers_and_captions(folders: Callable[[str], Path], word: str) -> None:
    judge = RewardModel.load(str(folders("llava_qwen")))
    found = judge.compare(question=f"is it {word}?", answers=(word, f"no {word}"), context=RED, max_new_tokens=24)
    assert found.text
    assert judge.compare(caption=word, images=(RED, BLUE), max_new_tokens=2).text


def test_a_reserved_code_is_refused(processor: Processor) -> None:
    for code in (OPEN, CLOSE):
        with pytest.raises(BadInputError, match=r"r: a text holds the code U\+FDD0 or U\+FDD1"):
            encode_chat(processor, chat_of(f"a{code}b"), name="r")


def test_half_a_pair_is_refused_by_name(processor: Processor) -> None:
    with pytest.raises(BadInputError, match=r"record 7: a text holds half of a surrogate pair \(\\ud83d\)"):
        encode_chat(processor, chat_of("a \ud83d"), name="record 7")
    with pytest.raises(BadInputError, match=r"record 7: its response holds half of a surrogate pair"):
        encode_response(processor, "a \ud83d", name="record 7")


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", " <|im_end|> \n\n", "<|endoftext|>", "<|endoftext|>\n"])
def test_one_end_token_of_a_response_is_taken_off(processor: Processor, end: str) -> None:
    plain = encode_response(processor, "<answer>x</answer>", name="r")
    ended = encode_response(processor, "<answer>x</answer>" + end, name="r")
    kept = " " if end.startswith(" ") else ""
    assert processor.tokenizer.decode(ended) == f"<answer>x</answer>{kept}<|im_end|>"
    assert ended[-1] == plain[-1] == processor.end_ids[0]
    assert int(np.isin(ended, processor.end_ids).sum()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a<|image_pad|>b", "<|im_start|>a", "<|vision_start|>", "a<|im_end|>b", "a<|im_end|><|im_end|>",
        "a<|endoftext|>\n<|im_end|>", "{p}", "{v} x",
    ],
)  # fmt: skip
def test_other_control_tokens_of_a_response_are_refused(processor: Processor, text: str) -> None:
    family = processor.family
    text = text.replace("{p}", family.image_placeholder).replace("{v}", family.video_placeholder)
    with pytest.raises(BadInputError, match=r"r: its response holds '<.*>', which the tokenizer reads as a contr"):
        encode_response(processor, text, name="r")


def test_so_are_those_that_only_this_tokenizer_knows(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "judge")
    settings = json.loads((folder / "tokenizer.json").read_text())
    free = max(token["id"] for token in settings["added_tokens"]) + 1
    settings["added_tokens"].append(
        {"id": free, "content": "[ACT]", "special": True, "normalized": False,
         "lstrip": False, "rstrip": False, "single_word": False}
    )  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    text["vocab_size"] = max(free + 1, text["vocab_size"])
    (folder / "config.json").write_text(json.dumps(config))
    processor = load_processor(str(folder))[0]
    assert free in processor.tokenizer("x [ACT]")["input_ids"]
    with pytest.raises(BadInputError, match=r"r: its response holds '\[ACT\]'"):
        encode_response(processor, "x [ACT]", name="r")
    assert free not in encode_chat(processor, chat_of("x [ACT]"), name="r").tokens_T


PAIR = Example("p", "image_gen", "a cat", (), (Media("image", RED), Media("image", BLUE)), label=1)


def test_records_are_refused_as_a_whole_and_counted(tmp_path: Path) -> None:
    row: dict[str, Any] = {"caption": "a cat", "images": ["a.png", "b.png"], "label": 1}
    replies = ("<answer>Image 1 is better</answer><|im_end|>\n", "<answer>a <|image_pad|></answer>", "a<|im_end|>b")
    turns = [[{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": reply}] for reply in replies]
    rows = [{**row, "conversations": said} for said in turns]
    for name in row["images"]:
        Image.fromarray(RED).save(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    pool = read_pool(str(tmp_path / "rows.jsonl"))
    assert [example.response for example in pool.examples] == [replies[0]]
    assert pool.skipped.counts == {"control text": 2}


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_earlier_turns_and_histories_are_looked_at(processor: Processor, role: str) -> None:
    history = [{"role": role, "content": "a <|vision_start|> b"}]
    record = Example("p", text="q", response="r", meta={"history": history})
    with pytest.raises(BadInputError, match=r"record p: its text holds '<\|vision_start\|>'"):
        render(record)
    encoder = Encoder(processor, max_prompt_tokens=512, max_new_tokens=64)
    read_back = Example("p", text="q", response="r", input_response="<|im_start|>")
    with pytest.raises(BadInputError, match=r"record p: its text holds '<\|im_start\|>'"):
        encoder.trained(read_back, template="v1")
