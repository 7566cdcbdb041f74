"""What the data settings of a stage make of its records."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.data.video_samples import grey_frames, levels_of, write_video
from urt_jax.checkpoints.model_folder import load_model
from urt_jax.data.examples import DEFAULT_FRAMES, Example, FramePicking, Media
from urt_jax.data.settings import MixtureData, PoolData
from urt_jax.data.sources import write_examples
from urt_jax.data.video import load_clip
from urt_jax.feeds import records
from urt_jax.feeds.encoder import Encoder
from urt_jax.feeds.records import labelled_pool, question_pool, question_source, training_source
from urt_jax.tasks.wording import DEFAULT_TEMPLATE


def write_pairs(folder: Path) -> str:
    """Write a pair of videos and a question about one, with responses to learn, and return the path of the records."""
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", grey_frames(25))
    reply = {"from": "gpt", "value": "<answer>Video 1 is better</answer>"}
    turns = [{"from": "human", "value": "<video><video>which?"}, reply]
    pair = {"conversations": turns, "videos": ["a.mp4", "b.mp4"], "caption": "it glows"}
    film = {"question": "?", "answers": ["l", "r"], "video": "a.mp4", "label": 2}
    (folder / "d.jsonl").write_text(json.dumps(pair) + "\n" + json.dumps(film) + "\n")
    return str(folder / "d.jsonl")


def clips_of(example: Example) -> list[Media]:
    return [item for item in (*example.context, *example.candidates) if isinstance(item, Media)]


def test_clips_of_every_source_carry_the_picking_of_its_settings(tmp_path: Path) -> None:
    path, videos = write_pairs(tmp_path), {"video_gen": 1.0}
    for settings in ({"path": path}, {"count": 2, "tasks": videos}):
        data = PoolData(**settings, max_frames=3, fps=6.0)
        shown = labelled_pool(data, seed=0).examples
        if "tasks" in settings:
            learnt = MixtureData(**settings, max_frames=3, fps=6.0)
            shown = [*shown, training_source(learnt, seed=0).get(0), question_source(data, seed=0).get(0)]
        for example in shown:
            assert clips_of(example)
            assert {clip.picking for clip in clips_of(example)} == {FramePicking(max_frames=3, fps=6.0)}
    pair = labelled_pool(PoolData(path=path, max_frames=3, fps=6.0), seed=0).examples[0]
    clip = load_clip(clips_of(pair)[0], name="x")
    assert (levels_of(clip.frames).tolist(), clip.fps) == ([0, 12, 24], 24 * 3 / 25)  # of 0, 4, ..., 24


def test_learnt_files_and_drills_are_picked_too(tmp_path: Path) -> None:
    path = write_pairs(tmp_path)
    first = training_source(MixtureData(path=path, count=1, max_frames=2, max_skipped_share=0.5), seed=0).get(0)
    drawn = training_source(MixtureData(path="drills", max_frames=2), seed=0)
    clips = [clip for place in range(60) for clip in clips_of(drawn.get(place)) if clip.kind == "video"]
    for clip in (*clips_of(first), *clips):
        assert clip.picking == FramePicking(max_frames=2)
    assert clips


def test_pictures_and_unpicked_clips_are_left_as_they_are(tmp_path: Path) -> None:
    data = PoolData(path=write_pairs(tmp_path), max_frames=None)
    assert all(clip.picking is None for item in labelled_pool(data, seed=0).examples for clip in clips_of(item))
    picture = Example("a", "image_und", "?", (Media("image", np.zeros((4, 4, 3), np.uint8)),), ("l", "r"))
    assert records.with_picking(picture, PoolData(max_frames=2)).context == picture.context


def test_by_default_the_frames_are_kept_that_the_python_api_keeps(tmp_path: Path) -> None:
    for item in labelled_pool(PoolData(path=write_pairs(tmp_path)), seed=0).examples:
        assert {clip.picking for clip in clips_of(item)} == {FramePicking(max_frames=DEFAULT_FRAMES)}


def test_a_question_is_encoded_anew_for_another_picking(tiny_judge: Path) -> None:
    encoder = Encoder(load_model(str(tiny_judge)).processor, max_prompt_tokens=2048, max_new_tokens=16)
    films = [
        labelled_pool(PoolData(count=1, tasks={"video_gen": 1.0}, max_frames=most), seed=0).examples[0]
        for most in (None, 2, 2)
    ]
    whole, picked, again = (encoder.prompt(film, template=DEFAULT_TEMPLATE) for film in films)
    assert again is picked
    assert sum(len(frame.patches_PC) for frame in picked.frames) < sum(len(frame.patches_PC) for frame in whole.frames)


def test_the_order_of_a_question_is_drawn_once_and_anew_in_every_pass(tmp_path: Path) -> None:
    """One coin for each showing: no other one for each record stands behind it."""
    first = labelled_pool(PoolData(count=1), seed=0).examples[0]
    winners = [replace(first, id=f"r{n}", label=1, meta={}) for n in range(30)]
    write_examples(tmp_path / "pairs.jsonl", winners)
    data = PoolData(path=str(tmp_path / "pairs.jsonl"))
    assert [e.label for e in question_pool(data, seed=3).examples] == [1] * 30, "as it is written"
    source = question_source(data, seed=3)
    passes = [{(e := source.get(30 * n + place)).id: e.label for place in range(30)} for n in range(6)]
    assert all(8 <= list(labels.values()).count(2) <= 22 for labels in passes)
    assert all({labels[f"r{n}"] for labels in passes} == {1, 2} for n in range(20))
    kept = question_source(replace(data, swap=False), seed=3)
    assert {kept.get(place).label for place in range(60)} == {1}
