"""Layouts of pictures made for a prompt: pairs, rankings, votes and ratings of single ones."""

from __future__ import annotations

from typing import Any

from urt_jax.data.sources.layouts.row import (
    MAX_RATING,
    Label,
    Layout,
    bad_label,
    better_sum,
    larger,
    ranks,
    record,
    scores_by_people,
    spelt,
)
from urt_jax.files.fields import Fields

VOTES: dict[str, Label] = {"leftvote": 1, "rightvote": 2, "tievote": "tie", "bothbad_vote": "tie"}
MAX_VOTES = 1e9


def _pair(fields: Fields, used: tuple[str, ...], first: str, second: str, **own: Any) -> dict[str, Any]:
    """Return the record of two pictures for ``prompt``."""
    images = [fields[first], fields[second]]
    return record(
        fields, ("prompt", first, second, *used), task="image_gen", caption=fields.text("prompt"), images=images, **own
    )


def _hpdv2_pair(fields: Fields) -> dict[str, Any]:
    """Two pictures, of which ``human_preference`` marks the better one with 1."""
    paths = "image_path" if "image_path" in fields else "file_path"
    images = fields.values_of(paths, at_least=2, at_most=2)
    marked = fields.numbers("human_preference", size=2, at_least=0, at_most=1)
    return record(
        fields, ("prompt", paths, "human_preference"), task="image_gen", caption=fields.text("prompt"), images=images,
        label=larger(*marked),
    )  # fmt: skip


def _hpdv2_ranking(fields: Fields) -> dict[str, Any]:
    """Several pictures, with the rank of each."""
    images = fields.values_of("image_path", at_least=2, at_most=4096)
    return record(
        fields, ("prompt", "image_path", "rank"), task="image_gen", caption=fields.text("prompt"), images=images,
        ranking=ranks(fields, "rank", size=len(images)),
    )  # fmt: skip


def _hpdv3(fields: Fields) -> dict[str, Any]:
    """Two pictures, the better one first."""
    return _pair(fields, (), "path1", "path2", label=1)


def _image_reward(fields: Fields) -> dict[str, Any]:
    """Several pictures with ranks, which may tie, and three ratings of each."""
    images = fields.values_of("generations", at_least=2, at_most=4096)
    rated = {
        name: fields.numbers(name, size=len(images), at_least=-MAX_RATING, at_most=MAX_RATING)
        for name in ("image_text_alignment_rating", "fidelity_rating", "overall_rating")
        if name in fields
    }
    return record(
        fields, ("prompt", "generations", "ranking", *rated), task="image_gen", caption=fields.text("prompt"),
        images=images, ranking=ranks(fields, "ranking", size=len(images)),
        scores={name.removesuffix("_rating"): list(values) for name, values in rated.items()} or None,
    )  # fmt: skip


def _rapidata(fields: Fields) -> dict[str, Any]:
    """Two pictures with the votes for each."""
    votes = [fields.number(f"votes_image{place}", at_least=0, at_most=MAX_VOTES) for place in (1, 2)]
    return _pair(fields, ("votes_image1", "votes_image2"), "image1", "image2", label=larger(*votes), votes=votes)


def _oip(fields: Fields) -> dict[str, Any]:
    """Two pictures as ``chosen`` and ``rejected``."""
    return _pair(fields, (), "chosen", "rejected", label=1)


def _is_picture(cell: Any) -> bool:
    return isinstance(cell, dict) and ("bytes" in cell or "path" in cell)


def _evalmuse(fields: Fields) -> dict[str, Any]:
    """One picture, with three raters' scores from 1 to 5 of how well it fits its prompt."""
    given = fields.numbers("total_score", at_least=1, at_most=5)
    if not given:
        raise bad_label(fields, "total_score", "a list of scores from 1 to 5")
    return record(
        fields, ("prompt", "img_path", "total_score"), task="image_score", caption=fields.text("prompt"),
        images=[fields["img_path"]], scores={"Alignment": [sum(given) / len(given)]}, meta={"raters": list(given)},
    )  # fmt: skip


def _genai(fields: Fields) -> dict[str, Any]:
    """Two pictures, and a vote: left, right, a tie, or both bad, which is a tie whose reason is kept."""
    label = spelt(fields, "vote_type", VOTES)
    return _pair(fields, ("vote_type",), "left_image", "right_image", label=label, meta=_both_bad(fields))


def _both_bad(fields: Fields) -> dict[str, Any]:
    return {"both_bad": True} if fields.get("vote_type") == "bothbad_vote" else {}


def _omni(fields: Fields) -> dict[str, Any]:
    """Two pictures, judged by a criterion in words."""
    label = spelt(fields, "preference", {"response1": 1, "response2": 2, "tie": "tie"})
    return _pair(fields, ("preference",), "response1_path", "response2_path", label=label)


def _scores_of_models(fields: Fields) -> dict[str, Any]:
    """Two pictures with people's scores of each; a model's overall scores are kept as they are."""
    scores, used = scores_by_people(fields)
    return _pair(fields, used, "path1", "path2", label=better_sum(scores), scores=scores or None)


LAYOUTS = (
    Layout("hpdv2", frozenset(("prompt", "human_preference")), _hpdv2_pair,
           lambda fields: "image_path" in fields or "file_path" in fields),
    Layout("hpdv2_ranking", frozenset(("prompt", "image_path", "rank")), _hpdv2_ranking),
    Layout("hpdv3", frozenset(("prompt", "path1", "path2", "model1", "model2")), _hpdv3,
           lambda fields: "path_src" not in fields and "model1_dim1_score" not in fields),
    Layout("image_reward", frozenset(("prompt", "generations", "ranking")), _image_reward),
    Layout("rapidata_pictures", frozenset(("prompt", "image1", "image2", "votes_image1", "votes_image2")), _rapidata),
    Layout("open_image_preferences", frozenset(("prompt", "chosen", "rejected")), _oip,
           lambda fields: _is_picture(fields["chosen"]) and _is_picture(fields["rejected"])),
    Layout("evalmuse", frozenset(("prompt", "img_path", "total_score")), _evalmuse),
    Layout("genai_bench_pictures", frozenset(("prompt", "left_image", "right_image", "vote_type")), _genai,
           lambda fields: "source_image" not in fields),
    Layout("omni_reward_pictures", frozenset(("prompt", "response1_path", "response2_path", "criterion")), _omni),
    Layout("editreward_generation", frozenset(("prompt", "path1", "path2", "model1_dim1_score")), _scores_of_models,
           lambda fields: "path_src" not in fields),
)  # fmt: skip
