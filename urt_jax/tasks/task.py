"""The record of a judging task: its candidates, its dimensions, and the labels of its verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from urt_jax.errors import BadInputError

Medium = Literal["image", "video"]


@dataclass(frozen=True)
class Task:
    """A comparison of two candidates: media made for a caption, or written answers to a question about a medium.

    ``medium`` is the kind of the candidates, or of the subject of the answers. ``dimensions`` are the scored ones, in
    the order of the written reasoning (those of UnifiedReward-Think, arXiv 2505.03318, prompts v1). The verdict is
    ``<noun> 1 is better``.
    """

    name: str
    noun: str
    medium: Medium
    answers: bool  # the candidates are written answers
    dimensions: tuple[str, str, str]

    @property
    def prompt_field(self) -> str:
        """Name of the prompt's field in a record and of its slot in a template."""
        return "question" if self.answers else "caption"

    @property
    def tie(self) -> str:
        """Label of a tie."""
        return f"Both {self.noun.lower()}s are equally good"

    def label(self, place: int) -> str:
        """Return the label of the better candidate, counted from 1."""
        return f"{self.noun} {place} is better"

    def slots(self, prompt: str, answers: Sequence[str]) -> dict[str, str]:
        """Return the values for the slots of a prompt template.

        Raises:
            BadInputError: there is no prompt, or fewer than two answers where answers are compared.
        """
        if not prompt.strip():
            raise BadInputError(f"a prompt for {self.name} needs a {self.prompt_field} and the record has none")
        if not self.answers:
            return {"caption": prompt}
        if len(answers) < 2:
            raise BadInputError(f"comparing answers needs two or more written answers, the record has {len(answers)}")
        return {"question": prompt, **{f"answer_{n}": answer for n, answer in enumerate(answers, start=1)}}
