"""Layouts of the UnifiedReward family's own pools: conversations whose reply holds the label in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from urt_jax.data.sources.layouts.row import Label, Layout, bad_label
from urt_jax.files.fields import Fields
from urt_jax.files.json_text import JsonError, parse_object
from urt_jax.tasks.labels import NOUNS

_NOUN = "|".join(NOUNS)
_PAIR = re.compile(rf"({_NOUN}) ([12]) is better(?: than \1 [12])?\.(?:\s|$)")
_TIE = re.compile(rf"Both ({'|'.join(noun.lower() for noun in NOUNS)})s are equally good\.?(?:\s|$)")
_FINAL = re.compile(r"Final Score: ?([0-9]{1,3}(?:\.[0-9]{1,4})?)")
_AXIS = re.compile(r"^ *([A-Z][a-z]{2,20}) Score \(1-5\): ?([0-9](?:\.[0-9]{1,4})?) *$", re.MULTILINE)


def _reply(fields: Fields) -> str | None:
    """Return the last reply of a row's conversation, None if there is none."""
    turns = fields.get("conversations")
    last = turns[-1] if isinstance(turns, list) and turns else None
    reply = last.get("value") if isinstance(last, Mapping) and last.get("from") in ("gpt", "assistant") else None
    return reply if isinstance(reply, str) and "<answer>" not in reply else None


def _verdict(reply: str) -> tuple[str, Label] | None:
    """Return the noun and the label of a sentence that starts a reply."""
    if found := _PAIR.match(reply.strip()):
        return found[1], int(found[2])
    if found := _TIE.match(reply.strip()):
        return found[1].capitalize(), "tie"
    return None


def _is_pair(fields: Fields) -> bool:
    reply = _reply(fields)
    return reply is not None and _verdict(reply) is not None


def _pair(fields: Fields) -> dict[str, Any]:
    """A comparison, answered by a sentence; the reply stays what is learnt."""
    noun, label = _verdict(str(_reply(fields))) or ("", None)
    video = "video" in fields or "videos" in fields or noun == "Video"
    task = ("video" if video else "image") + ("_und" if noun == "Answer" else "_gen")
    return {**fields, "task": fields.get("task", task), "label": label}


def _is_final(fields: Fields) -> bool:
    reply = _reply(fields)
    return reply is not None and _FINAL.search(reply) is not None


def _final(fields: Fields) -> dict[str, Any]:
    """One candidate with a final score, whose range the prompt says; the reply stays what is learnt."""
    return _scored(fields, {"Final": [float(_FINAL.findall(str(_reply(fields)))[-1])]})


def _is_axes(fields: Fields) -> bool:
    reply = _reply(fields)
    return reply is not None and len(_AXIS.findall(reply)) >= 2


def _axes(fields: Fields) -> dict[str, Any]:
    """One candidate with a score from 1 to 5 on each axis; the reply stays what is learnt."""
    return _scored(fields, {name: [float(score)] for name, score in _AXIS.findall(str(_reply(fields)))})


def _scored(fields: Fields, scores: dict[str, list[float]]) -> dict[str, Any]:
    shown = fields.get("images")
    frames = isinstance(shown, list) and len(shown) > 1  # of one clip
    video = "video" in fields or "videos" in fields or frames
    return {**fields, "task": fields.get("task", "video_score" if video else "image_score"), "scores": scores}


def _flex_answer(fields: Fields) -> dict[str, Any] | None:
    reply = _reply(fields)
    if reply is None or '"categories"' not in reply or '"winner"' not in reply:
        return None
    start, end = reply.find("{"), reply.rfind("}")
    try:
        return parse_object(reply[start : end + 1].encode())
    except JsonError:
        return None


def _flex(fields: Fields) -> dict[str, Any]:
    """A comparison, answered by JSON with categories of dimensions, whose two scores sum to 10."""
    answer = Fields(_flex_answer(fields) or {}, f"{fields.where}: its reply")
    winner = re.fullmatch(rf"(?:({_NOUN}) )?([12]|tie)", str(answer.get("winner")).strip())
    if winner is None:
        raise bad_label(fields, "conversations", "a reply whose winner is 'Image 1', 'Image 2' or 'tie'")
    scores: dict[str, list[float]] = {}
    categories = answer.items_of("categories", at_most=64)
    for category in map(categories.group, categories):
        dimensions = category.items_of("dims", at_most=64)
        for one in map(dimensions.group, dimensions):
            scores[one.text("name")] = [one.number(f"score_{n}", at_least=0, at_most=10) for n in (1, 2)]
    video = "video" in fields or "videos" in fields
    task = fields.get("task", "video_gen" if video else "image_gen")
    label = "tie" if winner[2] == "tie" else int(winner[2])
    return {**fields, "task": task, "label": label, "scores": scores}


LAYOUTS = (
    Layout("unifiedreward_pairs", frozenset(("conversations",)), _pair, _is_pair),
    Layout("unifiedreward_points", frozenset(("conversations",)), _final, _is_final),
    Layout("unifiedreward_axes", frozenset(("conversations",)), _axes, _is_axes),
    Layout("unifiedreward_flex", frozenset(("conversations",)), _flex, lambda fields: _flex_answer(fields) is not None),
)
