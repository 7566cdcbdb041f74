"""Tokenizers in the published Qwen layout: load one, build a small one, write a chat as text."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from urt_jax.data.examples import Chat
from urt_jax.errors import BadInputError

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS: tuple[str, ...] = (
    END_OF_TEXT,
    TURN_START,
    TURN_END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ROLE_PHRASES = ("system\n", "user\n", "assistant\n")  # every turn opens with one of them

# Pieces that byte pairs are merged within: a word, a number of one or two digits (scores and sums) or a run of
# punctuation, each with the space before it; what is left between them is whitespace.
_PIECES = r" ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+"

_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] in ('image', 'image_url') -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}
{{- raise_exception('a message part is of type text, image or video, not ' + part['type']) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def load_tokenizer(folder: str | Path) -> Any:
    """Load the tokenizer of a model folder from its files alone: nothing is fetched, no code among them is run.

    Returns:
        a ``transformers`` tokenizer; its chat template comes from ``chat_template.json`` where no newer file holds one.

    Raises:
        BadInputError: the folder or its tokenizer files are missing or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInputError(f"tokenizer folder {folder}: no such folder; give a folder in the Hugging Face layout")
    present = {name for name in ("tokenizer.json", "vocab.json", "merges.txt") if (folder / name).is_file()}
    if "tokenizer.json" not in present and len(present) < 2:
        raise BadInputError(
            f"tokenizer folder {folder}: found {', '.join(sorted(present)) or 'no tokenizer file'}, needed "
            "tokenizer.json, or vocab.json with merges.txt; copy them from the published model"
        )
    if not (folder / "tokenizer_config.json").is_file():
        raise BadInputError(
            f"tokenizer folder {folder}: tokenizer_config.json is missing; copy it from the published model, "
            "it names the special tokens"
        )
    with _no_torch_advice():
        from transformers import AutoTokenizer
    try:
        with _no_word_on_config_json():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception on a broken file
        raise BadInputError(
            f"tokenizer folder {folder}: its files cannot be read ({error}); copy them again"
        ) from error
    older = folder / "chat_template.json"
    if tokenizer.chat_template is None and older.is_file():
        tokenizer.chat_template = json.loads(older.read_text(encoding="utf-8"))["chat_template"]
    return tokenizer


def build_tokenizer(corpus: Iterable[str], phrases: Sequence[str], *, vocab_size: int, folder: str | Path) -> None:
    """Train a small byte-level tokenizer and write it to ``folder`` in the published layout.

    Any text encodes and decodes back unchanged. Ids follow Qwen's order: byte pairs, special tokens, then one token for
    every phrase (the longest that matches wins), which ``decode`` keeps when special tokens are skipped.

    Args:
        corpus: texts whose words become tokens; the same corpus gives the same files.
        phrases: fixed ASCII texts to hold as one token each.
        vocab_size: upper limit of all tokens together; a small corpus yields fewer.

    Raises:
        BadInputError: no room for the bytes, or a phrase that cannot be a token.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    phrases = list(dict.fromkeys((*ROLE_PHRASES, *phrases)))
    for phrase in phrases:
        if not phrase or not phrase.isascii() or any(token in phrase for token in SPECIAL_TOKENS):
            raise BadInputError(f"phrase {phrase!r}: a phrase is non-empty ASCII text without special tokens")
    pairs = vocab_size - len(SPECIAL_TOKENS) - len(phrases)
    if pairs < 256:
        raise BadInputError(
            f"vocab_size {vocab_size}: 256 bytes, {len(SPECIAL_TOKENS)} special tokens and {len(phrases)} phrases need "
            f"{vocab_size - pairs + 256}; raise it"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pairs, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    # A phrase that is already one byte-pair token stays that token.
    tokenizer.add_tokens([AddedToken(phrase, special=False, normalized=False) for phrase in phrases])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_settings(), indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")


def chat_text(tokenizer: Any, chat: Chat, *, add_generation_prompt: bool = True) -> str:
    """Write a chat as the model reads it, by the tokenizer's own chat template.

    Every picture or clip is still one ``<|image_pad|>`` or ``<|video_pad|>``; with ``add_generation_prompt`` the text
    ends where the model's answer starts.

    Raises:
        BadInputError: the tokenizer has no chat template, or its template refuses the messages.
    """
    if not tokenizer.chat_template:
        raise BadInputError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; "
            "put chat_template.jinja of the published model into its folder"
        )
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise BadInputError(f"the chat template of {tokenizer.name_or_path} refuses the messages: {error}") from error
    return str(text)


def _settings() -> dict[str, Any]:
    """Return the contents of ``tokenizer_config.json``; the class named reads ``tokenizer.json`` as it stands."""
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token not in (END_OF_TEXT, TURN_END)],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }


@contextmanager
def _no_torch_advice() -> Iterator[None]:
    """Silence, for the first import of transformers only, its advice to install PyTorch."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _no_word_on_config_json() -> Iterator[None]:
    """Silence what transformers says of a model type it has no class for: only the tokenizer is read."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
