"""What is fuzzed: for each border of the project its inputs and the code that takes them in."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.fuzz import borders
from tests.fuzz.inputs import (
    CHAT_TEMPLATES,
    REPLY,
    ROWS,
    SEEDS,
    STORED_REPLY,
    WORDINGS,
    command_lines,
    joined,
    judge_texts,
)
from tests.fuzz.values import damaged, junk, spoiled_json


class Target(NamedTuple):
    """``cases`` draws inputs; ``take`` has the project take one in, in a folder that ``prepare`` filled."""

    cases: st.SearchStrategy[Any]
    take: Callable[[Path, Any], object]
    prepare: Callable[[Path], object] = lambda folder: None
    shares: int = 10  # examples in the fast tests


def _media(makes: Callable[[str], bytes], forms: tuple[str, ...]) -> st.SearchStrategy[tuple[str, bytes]]:
    """Return a strategy of (form, damaged bytes)."""
    return st.tuples(st.sampled_from(forms), SEEDS).map(lambda case: (case[0], damaged(makes(case[0]), case[1])))


_LISTS = (list(ROWS[:3]), list(ROWS[5:]))
_MIXTURE = {"datasets": [{"json_path": "rows.yaml", "sampling_strategy": "first:10%", "image_folder": "."}]}
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "chat_template.json", "special_tokens_map.json")
_SETTINGS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json", "generation_config.json")

TARGETS: dict[str, Target] = {
    "records": Target(spoiled_json(ROWS), partial(borders.read_rows, ending="jsonl"), borders.write_media, 60),
    "record lists": Target(spoiled_json(_LISTS), partial(borders.read_rows, ending="json"), borders.write_media),
    "mixtures": Target(spoiled_json((_MIXTURE,)), partial(borders.read_rows, ending="yaml"), borders.write_media),
    "pictures": Target(
        _media(borders.picture, ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")).map(lambda case: case[1]),
        borders.take_picture,
        shares=40,
    ),
    "clips": Target(
        _media(lambda form: borders.clips()[form], ("mp4", "avi", "mkv", "webm", "ts")), borders.take_clip, shares=20
    ),
    "arguments": Target(borders.api_arguments(), borders.take_arguments, shares=20),
    "model settings": Target(
        borders.folder_cases(_SETTINGS), partial(borders.take_folder, weights=False), borders.fresh_judge, 30
    ),
    "tokenizers": Target(
        borders.folder_cases(_TOKENIZER), partial(borders.take_folder, weights=False), borders.fresh_judge
    ),
    "weights": Target(
        borders.folder_cases(("model.safetensors", "model.safetensors.index.json")),
        partial(borders.take_folder, weights=True),
        borders.fresh_judge,
    ),
    "adapters": Target(borders.adapter_cases(), borders.take_adapter, borders.write_adapter, 20),
    "command lines": Target(command_lines(), borders.take_command_line, shares=20),
    "run folders": Target(borders.run_files(), borders.take_run_file, shares=30),
    "replies": Target(spoiled_json((REPLY,)), borders.take_reply, shares=20),
    "replies on disk": Target(spoiled_json((STORED_REPLY,)), borders.take_replies_file),
    "texts": Target(judge_texts(), borders.take_text, shares=20),
    "wordings": Target(joined(WORDINGS, 5), borders.take_wording),
    "chat templates": Target(joined(CHAT_TEMPLATES, 3), borders.take_chat_template, borders.fresh_judge),
    "reports": Target(junk(), borders.take_report, shares=5),
}
