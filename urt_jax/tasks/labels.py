"""The labels of verdicts: what candidates are called, and the sentence that names the better one or a tie."""

from typing import Literal, get_args

Noun = Literal["Image", "Video", "Answer"]
NOUNS: tuple[Noun, ...] = get_args(Noun)


def label_of(noun: str, place: int) -> str:
    """Return the label of the better candidate, counted from 1."""
    return f"{noun} {place} is better"


def tie_of(noun: str) -> str:
    """Return the label of a tie."""
    return f"Both {noun.lower()}s are equally good"


LABELS = {label_of(noun, place): place for noun in NOUNS for place in (1, 2)}
TIES = frozenset(tie_of(noun) for noun in NOUNS)
_NOUN_OF: dict[str, Noun] = {
    label: noun for noun in NOUNS for label in (label_of(noun, 1), label_of(noun, 2), tie_of(noun))
}


def noun_of(label: str) -> Noun | None:
    """Return the noun that a label uses for candidates; None if it is not a label."""
    return _NOUN_OF.get(label)
