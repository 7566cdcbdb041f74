"""The record of a judging task: its candidates, how it is asked, and how a reply to it is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from urt_jax.errors import BadInputError
from urt_jax.tasks.labels import Noun, label_of, tie_of
from urt_jax.tasks.replies import Verdict, parse

Medium = Literal["image", "video"]


@dataclass(frozen=True)
class Task:
    """What a judge is asked about candidates: media made for a caption, or written answers to a question.

    ``medium`` is the kind of the candidates, or of the subject of the answers. ``dimensions`` are the scored ones, in
    the order of the written reasoning (those of UnifiedReward-Think, arXiv 2505.03318, prompts v1). ``candidates`` is
    the number that a prompt shows: the two orders of a pair are asked and learnt, and a verdict on one is mirrored to
    the other (``Example.swapped``). ``reader`` reads a reply in the task's form. The wording of the prompt is a text
    file, ``wordings/<family>/<name>.txt``.
    """

    name: str
    noun: Noun
    medium: Medium
    answers: bool  # the candidates are written answers
    dimensions: tuple[str, ...]
    candidates: int = 2
    reader: Callable[..., Verdict] = parse  # (text, *, think, noun)

    @property
    def prompt_field(self) -> str:
        """Name of the prompt's field in a record and of its slot in a template."""
        return "question" if self.answers else "caption"

    @property
    def tie(self) -> str:
        """Label of a tie."""
        return tie_of(self.noun)

    def label(self, place: int) -> str:
        """Return the label of the better candidate, counted from 1."""
        return label_of(self.noun, place)

    def read(self, text: str, *, think: bool = True) -> Verdict:
        """Read a reply; ``think=False`` also accepts an answer without reasoning. Never raises."""
        return self.reader(text, think=think, noun=self.noun)

    def slots(self, prompt: str, answers: Sequence[str]) -> dict[str, str]:
        """Return the values for the slots of a prompt template.

        Raises:
            BadInputError: there is no prompt, or fewer answers than candidates where answers are compared.
        """
        if not prompt.strip():
            raise BadInputError(f"a prompt for {self.name} needs a {self.prompt_field} and the record has none")
        if not self.answers:
            return {"caption": prompt}
        if len(answers) < self.candidates:
            needed = f"{self.candidates} or more written answers"
            raise BadInputError(f"a prompt for {self.name} needs {needed}, the record has {len(answers)}")
        return {"question": prompt, **{f"answer_{n}": answer for n, answer in enumerate(answers, start=1)}}
