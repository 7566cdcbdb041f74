"""Layouts of edits of a source picture."""

from __future__ import annotations

import re
from typing import Any

from urt_jax.data.sources.layouts.pictures import VOTES
from urt_jax.data.sources.layouts.row import Layout, bad_label, better_sum, record, scores_by_people, spelt
from urt_jax.files.fields import Fields

_STEP = re.compile(r"\s*([>=])\s*")


def _edit(fields: Fields, used: tuple[str, ...], asked: str, images: list[str], **own: Any) -> dict[str, Any]:
    """Return the record of edits; ``asked`` is the field of the instruction, ``images`` are those of the pictures."""
    return record(
        fields, (asked, *images, *used), task="image_edit", instruction=fields.text(asked),
        images=[fields[name] for name in images], **own,
    )  # fmt: skip


def _editreward(fields: Fields) -> dict[str, Any]:
    """Two edits with people's scores of each; a model's overall scores, which often differ, are kept as they are."""
    scores, used = scores_by_people(fields)
    return _edit(
        fields, used, "prompt", ["path_src", "path1", "path2"], label=better_sum(scores), scores=scores or None
    )


def _editreward_bench(fields: Fields) -> dict[str, Any]:
    """Two to four edits, and their order such as ``B>A=C``."""
    names = sorted(name for name in fields if re.fullmatch(r"candidate_[1-9]", name))
    return _edit(
        fields, ("ranking",), "instruction", ["source_image", *names], ranking=_ranks(fields, "ranking", len(names))
    )


def _ranks(fields: Fields, name: str, size: int) -> list[int]:
    """Return the rank of each candidate, A the first, from an order such as ``B>A=C``."""
    letters = "ABCDEFGHI"[:size]
    needed = f"an order of {', '.join(letters)}, such as {'>'.join(letters)}"
    parts = _STEP.split(fields.text(name).strip())
    if sorted(parts[::2]) != list(letters):
        raise bad_label(fields, name, needed)
    rank, found = 1, {parts[0]: 1}
    for place, (step, letter) in enumerate(zip(parts[1::2], parts[2::2]), start=2):
        rank = place if step == ">" else rank
        found[letter] = rank
    return [found[letter] for letter in letters]


def _genai(fields: Fields) -> dict[str, Any]:
    """Two edits, and a vote: left, right, a tie, or both bad."""
    asked = "instruct_prompt" if "instruct_prompt" in fields else "prompt"
    bad = {"both_bad": True} if fields.get("vote_type") == "bothbad_vote" else {}
    return _edit(
        fields, ("vote_type",), asked, ["source_image", "left_image", "right_image"],
        label=spelt(fields, "vote_type", VOTES), meta=bad,
    )  # fmt: skip


LAYOUTS = (
    Layout("editreward", frozenset(("prompt", "path_src", "path1", "path2", "model1_dim1_score")), _editreward),
    Layout("editreward_bench", frozenset(("instruction", "source_image", "candidate_1", "candidate_2", "ranking")),
           _editreward_bench),
    Layout("genai_bench_edits", frozenset(("source_image", "left_image", "right_image", "vote_type")), _genai),
)  # fmt: skip
