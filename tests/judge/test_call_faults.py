"""The Python API: settings that mean nothing, candidates and messages of another kind, and clips of any length.

Calls with arguments of a wrong type are made in a process without the checks of annotations that tests run under:
``python -m tests.judge.test_call_faults JUDGE RESULTS``.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.video_samples import grey_frames, write_video
from urt_jax import RewardModel
from urt_jax.data.examples import DEFAULT_FRAMES, Chat, Example, FramePicking, Media, Query
from urt_jax.data.frame_picking import spread
from urt_jax.errors import BadInputError
from urt_jax.families.processor import encode_chat

RED, BLUE = (np.full((56, 56, 3), colour, np.uint8) for colour in ([200, 0, 0], [0, 0, 200]))
PAIR = Example("p", "image_gen", "x", (), (Media("image", RED), Media("image", BLUE)))
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "which colour?"}]
CHAT = Chat(MESSAGES)
NAN = float("nan")


@pytest.fixture(scope="module")
def judge(tiny_judge: Path) -> RewardModel:
    return RewardModel.load(str(tiny_judge))


BAD: dict[str, tuple[Any, ...]] = {
    "order": ("bothh", "Both", "", None, 1, ["both"]),
    "temperature": (NAN, float("inf"), -1, -0.1, "hot", None, True, [1.0], 1e9),
    "seed": (-1, 2**32, 10**30, 0.5, "0", None, True),
    "votes": (0, -1, 1.5, "3", None, True, 10**9),
    "think": ("no", 0, 1, None, "yes"),
    "max_new_tokens": (0, -1, 1.5, "9", True, 10**9, NAN),
    "batch_size": (0, -1, 1.5, "9", None, True, 10**9),
    "max_frames": (0, -1, 1.5, "9", True, 10**9),
    "fps": (0, -1, NAN, float("inf"), "9", True, 10**9),
    "progress": (5, "bar"),
    "caption": (5, b"x", ["x"], NAN),
    "question": (5, b"x", ["x"]),
    "max_prompt_tokens": (0, -1, 1.5, "9", True, 10**9),
    "workers": (-1, 1.5, "2", None, True, 10**6),
    "attention": ("flash", "XLA", "", None, 3),
    "dtype": ("float8", "bf16", "int32", "float64", np.int8, None, 7, object(), "", {}),
    "revision": (5, b"main", ["main"]),
    "name": (5, None, b"x", "", ["urt-tiny"]),
    "prompt_template": (5, None, b"v1", "v3", "a\0b", "x" * 5000),
}
DECODING = ("temperature", "seed", "max_new_tokens")
CALLS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "compare": (
        ("order", "votes", "think", *DECODING, "max_frames", "fps", "caption"),
        lambda judge, **given: judge.compare(**{"caption": "x", "images": (RED, BLUE), **given}),
    ),
    "compare_many": (
        ("order", "votes", "think", *DECODING, "batch_size", "max_frames", "fps", "progress"),
        lambda judge, **given: judge.compare_many([PAIR], **given),
    ),
    "rank": (
        ("order", "think", *DECODING, "batch_size", "max_frames", "fps", "progress", "caption", "question"),
        lambda judge, **given: judge.rank(**{"caption": "x", "candidates": [RED, BLUE], **given}),
    ),
    "generate": (
        DECODING,
        lambda judge, **given: judge.generate(**{"messages": MESSAGES, "max_new_tokens": 2, **given}),
    ),
    "respond": (
        (*DECODING, "batch_size", "progress"),
        lambda judge, **given: judge.respond([Query("q", CHAT)], **{"temperature": 0.0, "seed": 0, **given}),
    ),
    "load": (
        (
            "max_prompt_tokens",
            "workers",
            "dtype",
            "attention",
            "revision",
            "name",
            "prompt_template",
            "max_frames",
            "fps",
        ),
        lambda judge, **given: RewardModel.load(**{"name": "urt-tiny", **given}),
    ),
    "RewardModel": (
        ("max_prompt_tokens", "workers", "dtype", "attention", "prompt_template", "max_frames", "fps"),
        lambda judge, **given: RewardModel(judge.loaded, **given),
    ),
}
CASES = [
    (call, name, value)
    for call, (names, _) in CALLS.items()
    for name in names
    for value in BAD[name]
    if not (call == "generate" and value is None)
]


FAULTS: dict[str, tuple[Callable[[RewardModel], Any], str]] = {
    f"{call} {name} {n}": (
        lambda judge, ask=CALLS[call][1], given={name: value}: ask(judge, **given),  # type: ignore[misc]
        rf"\b{name.replace('_', '[_ ]')}\b",
    )
    for n, (call, name, value) in enumerate(CASES)
}
for n, value in enumerate((0, 0.0, np.float32(0), -1.0, NAN)):
    FAULTS[f"votes without a temperature {n}"] = (
        lambda judge, value=value: judge.compare(caption="x", images=(RED, BLUE), votes=3, temperature=value),  # type: ignore[misc]
        r"votes=3 at temperature|temperature is",
    )


PICTURES: dict[str, Any] = {"caption": "x"}
ANSWERS: dict[str, Any] = {"question": "x", "context": RED}


CANDIDATES: tuple[tuple[dict[str, Any], str], ...] = (
    (ANSWERS | {"answers": (4, 5)}, r"answers\[0\] is 4; give two texts"),
    (ANSWERS | {"answers": ("a", None)}, r"answers\[1\] is None; give two texts"),
    (ANSWERS | {"answers": "ab"}, r"answers is 'ab'; give a list"),
    (ANSWERS | {"answers": {"a": 1, "b": 2}}, r"answers is an object of 2 keys; give a list"),
    (ANSWERS | {"answers": 7}, r"answers is 7; give a list"),
    (ANSWERS | {"answers": []}, r"answers holds 0 candidates; compare takes 2"),
    (ANSWERS | {"answers": (n for n in "abc")}, r"answers holds 3 candidates; compare takes 2"),
    (ANSWERS | {"answers": ("a", "b"), "context": 5}, r"context is 5; give a path"),
    (ANSWERS | {"answers": ("a", "b"), "context": {"a": 1}}, r"context is an object of 1 keys; give a path"),
    (ANSWERS | {"answers": ("a", "b"), "context": np.zeros(3)}, r"image 1"),
    (ANSWERS | {"answers": ("a", "b"), "question": "half \ud83d"}, r"pair: a text holds half of a surrogate pair"),
    (ANSWERS | {"answers": ("a", "\udc00")}, r"pair: a text holds half of a surrogate pair"),
    (PICTURES | {"images": [None, RED]}, r"a candidate is None; give a path"),
    (PICTURES | {"images": [RED, 4]}, r"a candidate is 4; give a path"),
    (PICTURES | {"images": "ab"}, r"images is 'ab'; give a list"),
    (PICTURES | {"images": Path("ab")}, r"images is .*; give a list"),
    (PICTURES | {"images": [RED, RED, RED]}, r"images holds 3 candidates"),
    (PICTURES | {"images": {"a", "b"}}, r"images is a value of type set; give a list"),
    (PICTURES | {"images": ["no.png", "no.png"]}, r"pair: image 1: .*no\.png"),
    (PICTURES | {"images": [b"", b""]}, r"pair: image 1"),
    (PICTURES | {"videos": [None, None]}, r"a candidate is None"),
    (PICTURES | {"videos": [[], []]}, r"pair: video 1"),
    (PICTURES | {"images": (RED, BLUE), "caption": "half \ud83d"}, r"pair: a text holds half of a surrogate pair"),
    (PICTURES | {"images": (RED, BLUE), "caption": "  "}, r"a prompt for image_gen needs a caption"),
)
for n, (given, message) in enumerate(CANDIDATES):
    FAULTS[f"candidates {n}"] = (lambda judge, given=given: judge.compare(**given), message)  # type: ignore[misc]


RANKED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"candidates": "ab"}, r"candidates is 'ab'; give a list"),
    ({"candidates": []}, r"rank needs at least two candidates, got 0"),
    ({"candidates": (n for n in ())}, r"rank needs at least two candidates, got 0"),
    ({"candidates": ["x"] * 600}, r"rank needs at least two candidates, got more; at most 512"),
    ({"candidates": [RED, None]}, r"a candidate is None"),
    ({"candidates": [RED, BLUE], "context": RED}, r"context=.* came with candidates that are no texts"),
)
for n, (given, message) in enumerate(RANKED):
    FAULTS[f"ranked {n}"] = (lambda judge, given=given: judge.rank(caption="x", **given), message)  # type: ignore[misc]


TURNS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"messages": "hi"}, r"messages is 'hi'; give a list"),
    ({"messages": None}, r"messages is None; give a list"),
    ({"messages": []}, r"messages is empty"),
    ({"messages": ["hi"]}, r"messages\[0\] is 'hi'; give"),
    ({"messages": [{"content": "x"}]}, r"messages\[0\] is an object of 1 keys; give"),
    ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\]: its content is 5"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, r"messages\[0\]: part 0 is 'x'"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, r"part 0 is a text without one"),
    ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, r"refuses the messages: a message part"),
    ({"messages": [{"role": "user", "content": "\ud83d"}]}, r"messages: a text holds half of a surrogate pair"),
    ({"messages": [{"role": "user"}]}, r"messages\[0\]: its content is None; give a text"),
    ({"messages": MESSAGES, "images": RED[0, 0, 0]}, r"images is a value of type uint8; give a list"),
    ({"messages": MESSAGES, "images": "a.png"}, r"images is 'a\.png'; give a list"),
    ({"messages": MESSAGES, "images": [None]}, r"images\[0\] is None"),
    ({"messages": MESSAGES, "videos": [7]}, r"videos\[0\] is 7"),
    ({"messages": MESSAGES, "images": [RED]}, r"messages: 1 images for 0 image placeholders"),
)
for n, (given, message) in enumerate(TURNS):
    FAULTS[f"logits of messages {n}"] = (lambda judge, given=given: judge.logits(**given), message)  # type: ignore[misc]
    FAULTS[f"generate of messages {n}"] = (
        lambda judge, given=given: judge.generate(max_new_tokens=2, **given),  # type: ignore[misc]
        message,
    )


for n, examples in enumerate(("ab", 5, None, [1], [PAIR, "x"], [{"id": "a"}])):
    FAULTS[f"examples {n}"] = (
        lambda judge, examples=examples: judge.compare_many(examples),  # type: ignore[misc]
        r"examples(\[\d\])? is .*; give",
    )


FAULTS["examples task"] = (
    lambda judge: judge.compare_many([replace(PAIR, task="image_gem")]),
    r"examples\[0\]: task 'image_gem' is unknown; did you mean 'image_gen'",
)


def call_all(folder: str) -> dict[str, tuple[str, str]]:
    """Return what each faulty call raised: kind and words."""
    judge = RewardModel.load(folder)
    raised = {}
    for name, (ask, _) in FAULTS.items():
        try:
            ask(judge)
            raised[name] = ("nothing", "")
        except Exception as error:
            raised[name] = (type(error).__name__, str(error))
    settings: dict[str, Any] = {"seed": np.int64(3), "max_new_tokens": np.int32(2), "temperature": np.float32(0.5)}
    found = judge.compare(caption="x", images=(RED, BLUE), think=np.bool_(True), votes=np.int8(2), **settings)
    plain: dict[str, Any] = {"caption": "x", "votes": 2, "temperature": 0.5, "seed": 3, "max_new_tokens": 2}
    assert found == judge.compare(images=(RED, BLUE), **plain)
    assert found == judge.compare(images=(picture for picture in (RED, BLUE)), **plain)  # type: ignore[arg-type]
    return raised


@pytest.fixture(scope="module")
def raised(tiny_judge: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    results = tmp_path_factory.mktemp("raised") / "results.json"
    command = [sys.executable, "-m", "tests.judge.test_call_faults", str(tiny_judge), str(results)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    found: dict[str, tuple[str, str]] = json.loads(results.read_text())
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_by_name(raised: dict[str, tuple[str, str]], name: str) -> None:
    kind, words = raised[name]
    assert kind == "BadInputError", words
    assert re.search(FAULTS[name][1], words), words
    assert "0x" not in words
    assert len(words) < 900


def test_an_id_of_any_characters_names_a_stream(judge: RewardModel) -> None:
    for name in ("a \ud83d", "", "\0"):
        found = judge.compare_many([Example(name, "image_gen", "x", (), PAIR.candidates)], max_new_tokens=2)
        assert found[0].text is not None


def frames_asked(judge: RewardModel, monkeypatch: pytest.MonkeyPatch, **given: Any) -> list[int]:
    """Return how many frames of each clip a comparison shows."""
    shown: list[int] = []

    def respond(queries: list[Query], **settings: Any) -> list[tuple[str]]:
        for query in queries:
            encoded = encode_chat(judge.processor, query.chat, name="r")
            shown.append(len(encoded.frames))
        return [("",) for _ in queries]

    monkeypatch.setattr(judge, "respond", respond)
    judge.compare(**given)
    return shown


def test_frames_are_picked_by_default_and_as_asked(judge: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [np.zeros((30, 28, 28, 3), np.uint8)] * 2
    step = judge.processor.config.vision.temporal_patch_size
    for given, frames in (
        ({}, DEFAULT_FRAMES),
        ({"max_frames": 4}, 4),
        ({"max_frames": 100}, 30),
        ({"max_frames": 1}, step),
    ):
        shown = frames_asked(judge, monkeypatch, caption="x", videos=clips, **given)
        assert shown == [2 * -(-frames // step)]
    timed = [Media("video", clip, fps=10.0) for clip in clips]
    assert frames_asked(judge, monkeypatch, caption="x", videos=timed, fps=2.0) == [2 * -(-6 // step)]
    own = [Media("video", clip, picking=FramePicking(max_frames=2)) for clip in clips]
    assert frames_asked(judge, monkeypatch, caption="x", videos=own) == [2 * -(-2 // step)]
    whole = RewardModel(judge.loaded, max_frames=None)
    assert frames_asked(whole, monkeypatch, caption="x", videos=clips) == [2 * -(-30 // step)]
    few = RewardModel(judge.loaded, max_frames=2, fps=5.0)
    assert frames_asked(few, monkeypatch, caption="x", videos=timed) == [2 * -(-2 // step)]
    assert frames_asked(judge, monkeypatch, question="x", answers=("a", "b"), context=clips[0]) == [
        -(-DEFAULT_FRAMES // step)
    ]


def test_rates_need_times(judge: RewardModel) -> None:
    with pytest.raises(BadInputError, match=r"video 1: its 30 frames have no times"):
        judge.compare(caption="x", videos=[np.zeros((30, 28, 28, 3), np.uint8)] * 2, fps=2)


def test_seconds_of_a_large_video_are_judged(judge: RewardModel, tmp_path: Path) -> None:
    """180 frames are promised, 8 are decoded: the prompt of two such clips is a few hundred tokens."""
    levels = np.linspace(0, 240, 180).astype(np.uint8)
    write_video(tmp_path / "a.mp4", np.broadcast_to(levels[:, None, None, None], (180, 96, 128, 3)))
    given: dict[str, Any] = {"caption": "x", "max_new_tokens": 2}
    found = judge.compare(videos=[str(tmp_path / "a.mp4")] * 2, **given)
    frames = Media("video", str(tmp_path / "a.mp4"), picking=FramePicking(max_frames=8))
    assert found == judge.compare(videos=[frames] * 2, **given)
    assert found == judge.rank(candidates=[str(tmp_path / "a.mp4")] * 2, **given).verdicts[0]


def test_stages_and_api_keep_the_same_frames() -> None:
    from urt_jax.data.settings import DataSettings

    assert (DataSettings().max_frames, DataSettings().fps) == (DEFAULT_FRAMES, None)
    assert spread(180, DEFAULT_FRAMES).tolist() == np.linspace(0, 179, 8).round().tolist()
    assert len(grey_frames(3)) == 3


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(call_all(sys.argv[1])))
