"""The record that every stage reads and writes: a comparison, or a chat to learn, with its media."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from urt_jax.errors import BadInputError
from urt_jax.tasks import TASKS

DEFAULT_FRAMES = 8  # kept of a clip, including the first and the last, as in the paper's evaluation
MAX_FPS = 1000  # frames per second, of a clip and of picking


@dataclass(frozen=True)
class FramePicking:
    """The rule for keeping frames of a clip: those nearest to every ``1 / fps`` seconds (None: all), evenly thinned.

    More than ``max_frames`` frames are thinned at even distances, keeping the first and the last.

    Raises:
        BadInputError: ``max_frames`` below 1, ``fps`` not above 0 or above ``MAX_FPS``.
    """

    max_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise BadInputError(f"max_frames is {self.max_frames}; give at least 1, or None for all frames")
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise BadInputError(
                f"fps is {self.fps}; give frames a second, above 0 and at most {MAX_FPS}, or None for the clip's own"
            )


@dataclass(frozen=True)
class Media:
    """A picture or a clip, not yet decoded.

    ``source`` is a path or data URL, encoded bytes, a list of frame paths (a clip), a PIL image, or an array:
    ``uint8 [H, W, 3]`` for a picture, ``uint8 [frames, H, W, 3]`` for a clip. ``fps`` is the frame rate of the clip in
    ``source``; None = the file's own. ``picking`` selects its frames; None = all.
    """

    kind: Literal["image", "video"]
    source: Any
    fps: float | None = None
    picking: FramePicking | None = None


@dataclass(frozen=True)
class Example:
    """One comparison of N candidates (a pair is N = 2), or one chat without candidates.

    ``prompt`` is the caption of a generation task, the question of an understanding task or the instruction of an edit.
    ``context`` is media shared by all candidates (the picture asked about, the source of an edit). ``label`` is the
    1-based index of the better candidate, "tie" or None. ``ranking`` is a rank per candidate, 1 = best, equal = tie.
    ``answer`` is the right answer to an open question.
    ``text`` is the record's own complete prompt and, when given, is used unchanged; ``response`` is the response to
    learn (SFT). ``input_response``, when given, has the same number of tokens and replaces the response as input; the
    targets stay those of the response. ``meta`` keeps the record's other fields: ``scores``, gold scores per dimension,
    one per candidate; ``aspects``, a label per aspect; ``weight``, ``rater``, ``origin``, ``licence``; provenance.
    """

    id: str
    task: str | None = None
    prompt: str = ""
    context: tuple[Media, ...] = ()
    candidates: tuple[Media | str, ...] = ()
    label: int | Literal["tie"] | None = None
    votes: tuple[float, ...] | None = None
    text: str | None = None
    response: str | None = None
    input_response: str | None = None
    ranking: tuple[int, ...] | None = None
    answer: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def swapped(self) -> Example:
        """Return the same pair in the other order: candidates, label, votes and gold scores all mirrored.

        Raises:
            BadInputError: the record does not have two candidates, or its own prompt text holds the answers.
        """
        if len(self.candidates) != 2:
            raise BadInputError(
                f"record {self.id}: only a pair can be swapped, this one has {len(self.candidates)} candidates"
            )
        if not self.swappable:
            raise BadInputError(
                f"record {self.id}: its own prompt text already holds the answers in one order; give question and "
                "answers instead of problem to have both orders judged"
            )
        meta = {**self.meta, "swapped": not self.meta.get("swapped", False)}
        if "candidates" in meta:
            meta["candidates"] = meta["candidates"][::-1]
        if "scores" in meta:
            meta["scores"] = {name: [pair[1], pair[0]] for name, pair in meta["scores"].items()}
        if "aspects" in meta:
            meta["aspects"] = {name: _other_side(label) for name, label in meta["aspects"].items()}
        return replace(
            self,
            candidates=(self.candidates[1], self.candidates[0]),
            label=_other_side(self.label),
            ranking=None if self.ranking is None else self.ranking[::-1],
            votes=None if self.votes is None else (self.votes[1], self.votes[0]),
            response=None,
            input_response=None,
            meta=meta,
        )

    @property
    def swappable(self) -> bool:
        """Whether there is another order to show: true of a pair, unless its own prompt text holds the answers."""
        own_answers = self.text is not None and any(isinstance(item, str) for item in self.candidates)
        return len(self.candidates) == 2 and not own_answers

    @property
    def solution(self) -> str | None:
        """The right answer: that of an open question, else the exact text of the label; None without a decided one."""
        if self.answer is not None or self.task is None or not isinstance(self.label, int):
            return self.answer
        return TASKS[self.task].label(self.label)

    @property
    def judged(self) -> bool:
        """Whether the record says what is right: a label, a ranking, an answer, or the gold score of one candidate."""
        scored = self.task is not None and TASKS[self.task].candidates == 1 and bool(self.meta.get("scores"))
        return self.label is not None or self.ranking is not None or self.answer is not None or scored

    @property
    def noun(self) -> str | None:
        """The task's noun for candidates; ``None`` without a task."""
        return None if self.task is None else TASKS[self.task].noun


def _other_side(label: Any) -> Any:
    """Return the label of the same pair in the other order."""
    return {1: 2, 2: 1}.get(label, label)


@dataclass(frozen=True)
class Chat:
    """A conversation: Hugging Face style messages with their media in order of appearance.

    ``messages`` is ``[{"role": ..., "content": [part, ...]}]`` with parts ``{"type": "text", "text": ...}``,
    ``{"type": "image"}`` or ``{"type": "video"}``. ``think`` says whether the response starts with reasoning; None =
    the chat template's default.
    """

    messages: list[dict[str, Any]]
    images: tuple[Media, ...] = ()
    videos: tuple[Media, ...] = ()
    think: bool | None = None


@dataclass(frozen=True)
class Query:
    """A chat that a judge or a teacher is asked; ``id`` names it in messages and, of a judge, its random stream."""

    id: str
    chat: Chat
