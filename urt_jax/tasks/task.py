"""The record of a judging task: its candidates, how it is asked, and how a reply to it is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from urt_jax.errors import BadInputError
from urt_jax.tasks.labels import Noun, label_of, tie_of
from urt_jax.tasks.replies import Verdict, parse, read_answer

Medium = Literal["image", "video"]


def read_pair(text: str, *, think: bool, task: "Task") -> Verdict:
    """Read a comparison in the strict form."""
    return parse(text, think=think, noun=task.noun)


def read_open(text: str, *, think: bool, task: "Task") -> Verdict:
    """Read a free answer: the strict form with any text in ``<answer>``; there is no winner and no score."""
    content, reasoning, failure = read_answer(text, think=think)
    return Verdict(None, {}, None, None, reasoning, text, failure or (None if content else "the answer is empty"))


@dataclass(frozen=True)
class Task:
    """What a judge is asked about candidates: media made for a caption, or written answers to a question.

    ``medium`` is the kind of the candidates, or of the subject of the answers. ``dimensions`` are the scored ones, in
    the order of the written reasoning. ``candidates`` is the number that a prompt shows: 2 for a comparison, whose two
    orders are asked and learnt, and a verdict on one is mirrored to the other (``Example.swapped``); 1 for a score; 0
    for a question with a free answer. ``reader`` reads a reply in the task's form: (text, *, think, task). The wording
    of the prompt is a text file, ``wordings/<family>/<name>.txt``.
    """

    name: str
    noun: Noun
    medium: Medium
    answers: bool  # the candidates are written answers
    dimensions: tuple[str, ...]
    candidates: int = 2
    source: bool = False  # the candidates are edits of one picture, which is shown before them
    scale: tuple[int, int] = (1, 10)  # lowest and highest score of a dimension
    alone: str | None = None  # the task that scores one of the candidates by itself
    reader: Callable[..., Verdict] = read_pair

    @property
    def compares(self) -> bool:
        """Whether a reply names the better of two candidates."""
        return self.candidates == 2

    @property
    def prompt_field(self) -> str:
        """Name of the prompt's field in a record and of its slot in a template."""
        return "question" if self.answers else "instruction" if self.source else "caption"

    @property
    def tie(self) -> str:
        """Label of a tie."""
        return tie_of(self.noun)

    def label(self, place: int) -> str:
        """Return the label of the better candidate, counted from 1."""
        return label_of(self.noun, place)

    def read(self, text: str, *, think: bool = True) -> Verdict:
        """Read a reply; ``think=False`` also accepts an answer without reasoning. Never raises."""
        return self.reader(text, think=think, task=self)

    def context_media(self, count: int) -> int:
        """Return how many of a record's ``count`` media are not candidates, where the record does not say so."""
        return count if self.answers else min(count, 1) if self.source else 0

    def slots(self, prompt: str, answers: Sequence[str]) -> dict[str, str]:
        """Return the values for the slots of a prompt template.

        Raises:
            BadInputError: there is no prompt, or fewer answers than candidates where answers are judged.
        """
        if not prompt.strip():
            raise BadInputError(f"a prompt for {self.name} needs a {self.prompt_field} and the record has none")
        if not self.answers:
            return {self.prompt_field: prompt}
        if len(answers) < self.candidates:
            needed = f"{self.candidates} or more written answers"
            raise BadInputError(f"a prompt for {self.name} needs {needed}, the record has {len(answers)}")
        return {"question": prompt, **{f"answer_{n}": answer for n, answer in enumerate(answers, start=1)}}
