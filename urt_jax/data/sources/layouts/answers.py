"""Layouts of written answers to a question about a picture."""

from __future__ import annotations

from typing import Any

from urt_jax.data.sources.files import RecordError
from urt_jax.data.sources.layouts.row import Label, Layout, ranks, record, spelt
from urt_jax.files.fields import Fields

_AB: dict[str, Label] = {"A": 1, "B": 2, "response_a": 1, "response_b": 2}


def _vl_rewardbench(fields: Fields) -> dict[str, Any]:
    """Two answers with ranks, the least best."""
    answers = fields.texts("response")
    return record(
        fields, ("query", "response", "image", "human_ranking", "meta"), task="image_und",
        question=fields.text("query"), images=[fields["image"]], answers=list(answers),
        ranking=ranks(fields, "human_ranking", size=len(answers)),
    )  # fmt: skip


def _multimodal_rewardbench(fields: Fields) -> dict[str, Any]:
    """Two answers, and which is better."""
    label = spelt(fields, "Better", {"Output1": 1, "Output2": 2})
    made = record(
        fields, ("ID", "Text", "Image", "Output1", "Output2", "Better"), task="image_und", question=fields.text("Text"),
        images=[fields["Image"]], answers=[fields.text("Output1"), fields.text("Output2")], label=label,
    )  # fmt: skip
    return made | ({"id": fields["ID"]} if "ID" in fields else {})


def _mmrb2(fields: Fields) -> dict[str, Any]:
    """Two responses as lists of ``["text", ...]`` and ``["image", path]`` to such a prompt.

    Responses of one picture each are pictures for a caption, or edits if the prompt shows one; responses of text alone
    are answers about the prompt's picture. Others mix both and cannot be compared by a task.
    """
    asked, first, second = (_parts(fields, name) for name in ("prompt_content", "response_a", "response_b"))
    prompt = "\n".join(text for kind, text in asked if kind == "text")
    shown = [path for kind, path in asked if kind == "image"]
    kinds = [[kind for kind, _ in response] for response in (first, second)]
    own: dict[str, Any] = {"label": spelt(fields, "chosen", _AB)}
    if all(kind.count("image") == 1 and len(kind) == 1 for kind in kinds) and len(shown) <= 1:
        task, field = ("image_edit", "instruction") if shown else ("image_gen", "caption")
        own |= {"task": task, field: prompt, "images": [*shown, first[0][1], second[0][1]]}
    elif all(set(kind) == {"text"} for kind in kinds) and len(shown) == 1:
        answers = ["\n".join(text for _, text in response) for response in (first, second)]
        own |= {"task": "image_und", "question": prompt, "images": shown, "answers": answers}
    else:
        raise RecordError(
            f"{fields.where}: responses of {kinds[0]} and {kinds[1]} to {len(shown)} pictures; needed two pictures, or "
            "two texts about one picture",
            reason="interleaved",
        )
    made = record(fields, ("pair_id", "prompt_content", "response_a", "response_b", "chosen"), **own)
    return made | ({"id": fields["pair_id"]} if "pair_id" in fields else {})


def _parts(fields: Fields, name: str) -> list[tuple[str, str]]:
    found = []
    for part in fields.values_of(name, at_least=1, at_most=64):
        if not (
            isinstance(part, list) and len(part) == 2 and part[0] in ("text", "image") and isinstance(part[1], str)
        ):
            raise fields.refusal(name, 'a list of ["text", words] and ["image", path]')
        found.append((part[0], part[1]))
    return found


LAYOUTS = (
    Layout("vl_rewardbench", frozenset(("query", "response", "human_ranking", "image")), _vl_rewardbench),
    Layout("multimodal_rewardbench", frozenset(("Text", "Image", "Output1", "Output2", "Better")),
           _multimodal_rewardbench),
    Layout("mmrb2", frozenset(("prompt_content", "response_a", "response_b", "chosen")), _mmrb2),
)  # fmt: skip
