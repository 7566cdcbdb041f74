"""Tokenizers in the published Qwen layout: load one, build a small one, render a chat as text."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from urt_jax.data.chat_template import find_chat_template
from urt_jax.data.control_words import ControlWords
from urt_jax.data.examples import Chat
from urt_jax.errors import BadInputError, shown
from urt_jax.files.json_text import read_object
from urt_jax.files.reading import read_whole

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
# The opening of a response with which a prompt may end: reasoning that is begun, or left empty.
_OPENING = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
# An id of a hundred million or more in a vocabulary, for which loading would allocate memory up to the id; published
# ids end at 262,144. The bytes are searched, since parsing the JSON again would add a tenth to the time of loading.
_LARGE_ID = re.compile(rb'":\s*(\d{9,})')
EMPTY_REASONING = "<think>\n\n</think>\n\n"  # as in the published templates
ROLE_PHRASES = ("system\n", "user\n", "assistant\n")  # every turn starts with one of them

# Pieces within which byte pairs are merged: a word, a number of one or two digits (scores and sums) or a run of
# punctuation, each with the space before it; between them is only whitespace.
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
    """Load the tokenizer of a model folder from its files only: nothing is downloaded, and no code of it is run.

    Returns:
        a ``transformers`` tokenizer with the chat template of ``find_chat_template``.

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
    settings = read_object(folder / "tokenizer_config.json")
    for name in ("special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file():
            read_object(folder / name)
    for name in ("tokenizer.json", "vocab.json"):
        if name in present and (found_id := _LARGE_ID.search(read_whole(folder / name))):
            raise BadInputError(f"{folder / name}: a token has the id {found_id[1].decode()[:20]}; copy the file again")
    found = find_chat_template(folder)
    read = _tokenizer_class(settings.get("tokenizer_class"))
    try:
        with _no_word_on_config_json():
            tokenizer = read.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            _try_out(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises bare Exception on a broken file, and panics on some
        raise BadInputError(
            f"tokenizer folder {folder}: its files cannot be read ({_told(error)}); copy them again"
        ) from None
    tokenizer.chat_template = None if found is None else found.source
    return tokenizer


def _tokenizer_class(name: Any) -> Any:
    """Return the class of transformers that reads a tokenizer of this class.

    Qwen classes are imported from their own modules: ``AutoTokenizer`` would choose the same ones, but its import also
    imports torch if installed.
    """
    with _no_torch_advice():
        if name in ("Qwen2Tokenizer", "Qwen2TokenizerFast"):
            from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

            return Qwen2Tokenizer
        if name in ("PreTrainedTokenizerFast", "TokenizersBackend"):
            from transformers.tokenization_utils_tokenizers import TokenizersBackend

            return TokenizersBackend
        from transformers import AutoTokenizer

        return AutoTokenizer


def _try_out(tokenizer: Any) -> None:
    """Use the tokenizer once, since some damaged files load and fail only at use."""
    ids = tokenizer("a b", add_special_tokens=False)["input_ids"]
    tokenizer.decode(ids, skip_special_tokens=True)
    for token in tokenizer.added_tokens_decoder.values():
        token.content.encode()
    if None in tokenizer.all_special_ids:
        raise ValueError("a special token has no id")


def build_tokenizer(corpus: Iterable[str], phrases: Sequence[str], *, vocab_size: int, folder: str | Path) -> None:
    """Train a small byte-level tokenizer and write it to ``folder`` in the published layout.

    Any text encodes and decodes back unchanged. Ids follow Qwen's order: byte pairs, special tokens, then one token per
    phrase (the longest match wins), which ``decode`` keeps when special tokens are skipped.

    Args:
        corpus: texts whose words become tokens; the same corpus gives the same files.
        phrases: fixed ASCII texts that become one token each.
        vocab_size: upper limit of all tokens together; a small corpus yields fewer.

    Raises:
        BadInputError: ``vocab_size`` is too small for the bytes, or a phrase cannot be a token.
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
    """Render a chat as the model's input text, by the tokenizer's own chat template.

    Every picture or clip is still one ``<|image_pad|>`` or ``<|video_pad|>``; with ``add_generation_prompt`` the text
    ends where the response starts, or after the opening of its reasoning if the template writes that. ``chat.think``
    is passed to the template as ``enable_thinking``; if it is False and the template still opens the reasoning, the
    reasoning is closed again, empty.

    Raises:
        BadInputError: the tokenizer has no chat template; the template refuses the messages, fails, or exceeds the
            bounds of ``bounded_template``; or a text holds half of a surrogate pair.
    """
    return write_chat(tokenizer, chat, None, add_generation_prompt=add_generation_prompt)


def write_chat(tokenizer: Any, chat: Chat, words: ControlWords | None, *, add_generation_prompt: bool) -> str:
    """Render a chat as ``chat_text`` does, with a stand-in for each control word in its texts.

    Raises:
        BadInputError: as ``chat_text``.
    """
    if not tokenizer.chat_template:
        raise BadInputError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; "
            "put chat_template.jinja of the published model into its folder"
        )
    from urt_jax.data.bounded_template import render_template

    given: dict[str, Any] = {} if chat.think is None else {"enable_thinking": chat.think}
    given |= {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
    try:
        given["messages"] = [
            {key: _plain(value, words) for key, value in message.items() if value is not None}
            for message in chat.messages
        ]
        text = render_template(tokenizer.chat_template, {**tokenizer.special_tokens_map, **given})
    except BadInputError:
        raise
    except Exception as error:  # an untrusted template can raise anything
        raise BadInputError(_refusal(tokenizer, error)) from None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInputError(
            f"a text holds half of a surrogate pair (\\u{ord(text[error.start]):04x}), as a cut emoji leaves it: "
            f"{shown(text[max(error.start - 20, 0) : error.end])}; remove it"
        ) from None
    opened = opening_of(text) if add_generation_prompt and chat.think is False else ""
    return text.removesuffix(opened) + EMPTY_REASONING if opened and "</think>" not in opened else text


def opening_of(prompt: str) -> str:
    """Return the opening of the response at a prompt's end: ``<think>``, open or closed again, or ""."""
    found = _OPENING.search(prompt, max(len(prompt) - 64, 0))
    return found[0] if found else ""


def without_end(text: str) -> str:
    """Return a response without its end token, if it ends with one, and without the whitespace after it."""
    ended = text.rstrip()
    end = next((token for token in (TURN_END, END_OF_TEXT) if ended.endswith(token)), None)
    return text if end is None else ended.removesuffix(end)


def _plain(value: Any, words: ControlWords | None) -> Any:
    """Return a value converted to plain types; any other type becomes its type's name."""
    kind = type(value)
    if kind is str:
        return value if words is None else words.hidden(value)
    if kind is dict or isinstance(value, Mapping):
        return {str(key): _plain(item, words) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, words) for item in value]
    if value is None or kind in (int, float, bool):
        return value
    return _plain(str.__str__(value), words) if isinstance(value, str) else f"<{kind.__name__}>"


def _refusal(tokenizer: Any, error: Exception) -> str:
    """Return a message about a template's error, with the template's location."""
    from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError

    folder = Path(tokenizer.name_or_path)
    try:
        found = find_chat_template(folder) if folder.is_dir() else None
    except BadInputError:
        found = None
    place = found.file if found and found.source == tokenizer.chat_template else str(folder)
    if isinstance(error, TemplateSyntaxError):
        return f"the chat template of {place} cannot be read: line {error.lineno}: {_told(error)}; copy the file again"
    if isinstance(error, TemplateError) and not isinstance(error, UndefinedError):
        return f"the chat template of {place} refuses the messages: {_told(error)}"
    return (
        f"the chat template of {place} fails on the messages: {type(error).__name__}: {_told(error)}; copy the "
        "published one, that for pictures where there are two"
    )


def _told(error: BaseException, most: int = 300) -> str:
    """Return the message of a library's error on one line, without memory addresses."""
    told = " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", str(error)).split()) or type(error).__name__
    return told if len(told) <= most else f"{told[:most]}..."


def _settings() -> dict[str, Any]:
    """Return the contents of ``tokenizer_config.json``; the class it names reads ``tokenizer.json`` unchanged."""
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
    """Silence the warning of transformers about an unknown model type, since only the tokenizer is read."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
