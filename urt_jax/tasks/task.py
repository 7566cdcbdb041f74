"""What a task of judging is: what is compared, by which dimensions, and in which words its verdict is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from urt_jax.errors import BadInputError

Medium = Literal["image", "video"]


@dataclass(frozen=True)
class Task:
    """A comparison of two candidates: media made for a caption, or written answers to a question about a medium.

    ``medium`` is the kind of what is compared, or of what the answers are about. ``dimensions`` are the scored ones, in
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
        """Name of what is asked: the field of a record, and the slot of a template."""
        return "question" if self.answers else "caption"

    @property
    def tie(self) -> str:
        """The label of two candidates that are equally good."""
        return f"Both {self.noun.lower()}s are equally good"

    def label(self, place: int) -> str:
        """Return the label of the better candidate, counted from 1."""
        return f"{self.noun} {place} is better"

    def slots(self, prompt: str, answers: Sequence[str]) -> dict[str, str]:
        """Return what the slots of a prompt template may be filled with.

        Raises:
            BadInputError: there is no prompt, or answers are compared and there are not two.
        """
        if not prompt.strip():
            raise BadInputError(f"a prompt for {self.name} needs a {self.prompt_field} and the record has none")
        if not self.answers:
            return {"caption": prompt}
        if len(answers) < 2:
            raise BadInputError(f"comparing answers needs two or more written answers, the record has {len(answers)}")
        return {"question": prompt, **{f"answer_{n}": answer for n, answer in enumerate(answers, start=1)}}
