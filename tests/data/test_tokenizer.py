"""The small tokenizer that is built here and the published one: same layout, same calls."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from urt_jax.data.examples import Chat, Example, Media
from urt_jax.data.prompts import render
from urt_jax.data.tokenizer import SPECIAL_TOKENS, build_tokenizer, chat_text, load_tokenizer
from urt_jax.errors import BadInputError
from urt_jax.tasks import PAPER_TASKS
from urt_jax.tasks.wording import template_phrases

CORPUS = ["Image 1: a large red circle (ok) left of 23 blue squares\n"] * 8
PHRASES = ("/10) - ", "/10) - clean", "\n</think>\n<answer>Image ")
CHAT = Chat(
    [{"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "a red circle?"}]}],
    images=(Media("image", "x"),),
    videos=(Media("video", "y"),),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a small tokenizer inside a folder that is otherwise a Qwen2.5-VL model."""
    path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(CORPUS, (*PHRASES, *template_phrases(PAPER_TASKS)), vocab_size=420, folder=path)
    (path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    """Load it."""
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def qwen(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load the published tokenizer from its two plain files and its settings."""
    path = tmp_path_factory.mktemp("qwen")
    source = test_data / "qwen-tokenizer"
    for file in (source / "vocab.json", source / "merges.txt", *(source / "qwen2_5_vl_7b").iterdir()):
        (path / file.name).symlink_to(file)
    return load_tokenizer(path)


@pytest.mark.parametrize(
    "text",
    ["", "a red circle", "  two  spaces \n\n\tend ", "é 漢字 🙂 \u200d\x00", "it's 12345 <|foo|> </think>", "user\nx"],
)
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_words_numbers_and_marks_are_pieces(tokenizer: Any) -> None:
    ids = tokenizer("a large red circle 23", add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([i]) for i in ids] == ["a", " large", " red", " circle", " 23"]


def test_a_phrase_is_one_token_and_the_longest_wins(tokenizer: Any) -> None:
    ids = tokenizer("9/10) - clean/10) - red\n</think>\n<answer>Image 1", add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([i]) for i in ids]
    assert pieces[:3] == ["9", "/10) - clean", "/10) - "]
    assert "\n</think>\n<answer>Image " in pieces
    assert not set(tokenizer.convert_tokens_to_ids(list(PHRASES))) & set(tokenizer.all_special_ids)


def test_special_tokens_follow_the_byte_pairs_and_are_skipped(tokenizer: Any) -> None:
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(ids[0], ids[0] + len(SPECIAL_TOKENS)))
    assert ids[0] >= 256
    assert set(ids) == set(tokenizer.all_special_ids)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert len(tokenizer) <= 420
    assert (
        tokenizer.decode([*ids, *tokenizer("red", add_special_tokens=False)["input_ids"]], skip_special_tokens=True)
        == "red"
    )


def test_chat_template_is_qwens_without_a_system_turn(tokenizer: Any) -> None:
    text = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|video_pad|><|vision_end|>"
        "a red circle?<|im_end|>\n"
    )
    assert chat_text(tokenizer, CHAT, add_generation_prompt=False) == text
    assert chat_text(tokenizer, CHAT) == text + "<|im_start|>assistant\n"
    plain = Chat([{"role": "system", "content": "Judge."}, {"role": "user", "content": "hi"}])
    assert chat_text(tokenizer, plain).startswith(
        "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\nhi<|im_end|>"
    )


def test_a_rendered_question_is_few_tokens(tokenizer: Any) -> None:
    pair = Example("p", task="image_gen", prompt="a red circle", candidates=(Media("image", 1), Media("image", 2)))
    ids = tokenizer(chat_text(tokenizer, render(pair)), add_special_tokens=False)["input_ids"]
    assert len(ids) == 17  # 2 for each turn's head, 3 a picture, caption: + 3 words + the instruction, end and newline


def test_the_same_corpus_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    build_tokenizer(CORPUS, (*PHRASES, *template_phrases(PAPER_TASKS)), vocab_size=420, folder=tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_loads_without_torch_and_without_a_word(folder: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from urt_jax.data.tokenizer import load_tokenizer\n"
        f"print(len(load_tokenizer({str(folder)!r})))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRANSFORMERS_NO_ADVISORY_WARNINGS"}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": root},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 256


def test_older_folders_keep_the_template_in_a_file_of_json(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(BadInputError, match=r"has no chat template; put chat_template\.jinja"):
        chat_text(load_tokenizer(tmp_path), CHAT)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages[0]['role'] }}"}))
    assert chat_text(load_tokenizer(tmp_path), CHAT) == "user"


def test_a_part_the_template_does_not_know(tokenizer: Any) -> None:
    with pytest.raises(
        BadInputError, match="refuses the messages: a message part is of type text, image or video, not audio"
    ):
        chat_text(tokenizer, Chat([{"role": "user", "content": [{"type": "audio"}]}]))


def test_missing_or_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such folder"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(
        BadInputError, match=r"found vocab\.json, needed tokenizer\.json, or vocab\.json with merges\.txt"
    ):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadInputError, match=r"tokenizer_config\.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(BadInputError, match="its files cannot be read"):
        load_tokenizer(tmp_path)


def test_what_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(
        BadInputError, match=r"vocab_size 260: 256 bytes, 8 special tokens and 4 phrases need 268; raise it"
    ):
        build_tokenizer(CORPUS, ["x y"], vocab_size=260, folder=tmp_path)
    for phrase in ("", "é", "<|im_end|>\n"):
        with pytest.raises(BadInputError, match="a phrase is non-empty ASCII text without special tokens"):
            build_tokenizer(CORPUS, [phrase], vocab_size=400, folder=tmp_path)


def test_published_tokenizer(qwen: Any) -> None:
    assert len(qwen) == 151665
    assert qwen("Hello <|im_start|>")["input_ids"] == [9707, 220, 151644]
    assert qwen("a  b    c")["input_ids"] == [64, 220, 293, 262, 272]
    assert qwen("<think>")["input_ids"] == [13708, 766, 29]
    assert qwen("</answer>")["input_ids"] == [522, 9217, 29]
    text = chat_text(qwen, CHAT)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|vision_end|>a red circle?<|im_end|>\n<|im_start|>assistant\n")
    assert (text.count("<|image_pad|>"), text.count("<|video_pad|>")) == (1, 1)


@pytest.mark.parametrize(
    "name", ["Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", "GPT2Tokenizer"]
)
@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "llava_qwen"])
def test_the_class_is_the_one_that_transformers_chooses(tmp_path: Path, name: str, model_type: str) -> None:
    from transformers import AutoTokenizer

    build_tokenizer(CORPUS, ["x y"], vocab_size=300, folder=tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": name}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    found, wanted = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert type(found) is type(wanted)
    text = "a red  circle,\nleft of <|im_end|> blue"
    assert found(text)["input_ids"] == wanted(text)["input_ids"]
