"""Layouts of clips made for a prompt."""

from __future__ import annotations

from typing import Any

from urt_jax.data.sources.layouts.pictures import MAX_VOTES, VOTES
from urt_jax.data.sources.layouts.row import Label, Layout, larger, number, record, spelt
from urt_jax.files.fields import Fields

_SIDES: dict[str, Label] = {"A": 1, "B": 2, "same": "tie"}
_ASPECTS = ("VQ", "MQ", "TA")  # visual quality, motion quality, text alignment
_FEEDBACK = (
    "visual quality", "temporal consistency", "dynamic degree", "text-to-video alignment", "factual consistency",
)  # fmt: skip


def _pair(fields: Fields, used: tuple[str, ...], asked: str, videos: tuple[str, str], **own: Any) -> dict[str, Any]:
    return record(
        fields, (asked, *videos, *used), task="video_gen", caption=fields.text(asked),
        videos=[fields[name] for name in videos], **own,
    )  # fmt: skip


def _videogen(fields: Fields) -> dict[str, Any]:
    """Two clips with a label per aspect, and an overall one where the set has it."""
    aspects = {name: spelt(fields, name, _SIDES) for name in _ASPECTS if name in fields}
    known = {name: label for name, label in aspects.items() if label is not None}
    rates = [number(fields, f"fps_{side}") for side in "AB"]
    return _pair(
        fields, ("Overall", *_ASPECTS, "fps_A", "fps_B"), "prompt", ("path_A", "path_B"),
        label=spelt(fields, "Overall", _SIDES), fps=None if None in rates else rates,
        meta={"aspects": known} if known else {},
    )  # fmt: skip


def _genai(fields: Fields) -> dict[str, Any]:
    """Two clips, and a vote: left, right, a tie, or both bad."""
    bad = {"both_bad": True} if fields.get("vote_type") == "bothbad_vote" else {}
    label = spelt(fields, "vote_type", VOTES)
    return _pair(fields, ("vote_type",), "prompt", ("left_video", "right_video"), label=label, meta=bad)


def _rapidata(fields: Fields) -> dict[str, Any]:
    """Two clips with the weighted votes for each, per aspect; the label is that of the preference."""
    names = sorted(name.removeprefix("weighted_results1_") for name in fields if name.startswith("weighted_results1_"))
    both = {aspect: [_votes(fields, f"weighted_results{side}_{aspect}") for side in (1, 2)] for aspect in names}
    used = tuple(f"weighted_results{side}_{aspect}" for aspect in names for side in (1, 2))
    aspects = {aspect: label for aspect, sides in both.items() if (label := larger(*sides)) is not None}
    preference = both["Preference"]
    return _pair(
        fields, used, "prompt", ("file_name1", "file_name2"), label=aspects.pop("Preference", None),
        votes=None if None in preference else preference, meta={"aspects": aspects} if aspects else {},
    )  # fmt: skip


def _votes(fields: Fields, name: str) -> float | None:
    found: float | None = fields.number(name, None, at_least=0, at_most=MAX_VOTES)
    return found


def _feedback(fields: Fields) -> dict[str, Any]:
    """One clip as frames, with scores from 1 to 4 on five aspects."""
    scores = {name: [fields.number(name, at_least=1, at_most=4)] for name in _FEEDBACK}
    asked = "text prompt" if "text prompt" in fields else "prompt"
    return record(
        fields, (asked, "images", "conversations", *_FEEDBACK), task="video_score", caption=fields.text(asked),
        images=fields.values_of("images", at_least=1, at_most=4096), scores=scores,
    )  # fmt: skip


def _dpo(fields: Fields) -> dict[str, Any]:
    """Two clips, the better one first."""
    return _pair(fields, (), "frame_caption", ("video1", "video2"), label=1)


LAYOUTS = (
    Layout("videogen_rewardbench", frozenset(("path_A", "path_B", "prompt")), _videogen,
           lambda fields: any(name in fields for name in ("Overall", *_ASPECTS))),
    Layout("genai_bench_clips", frozenset(("prompt", "left_video", "right_video", "vote_type")), _genai),
    Layout("rapidata_clips", frozenset(("prompt", "file_name1", "file_name2", "weighted_results1_Preference",
                                        "weighted_results2_Preference")), _rapidata),
    Layout("video_feedback", frozenset(("images", *_FEEDBACK)), _feedback,
           lambda fields: "text prompt" in fields or "prompt" in fields),
    Layout("video_dpo", frozenset(("video1", "video2", "frame_caption")), _dpo),
)  # fmt: skip
