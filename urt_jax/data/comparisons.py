"""Records of comparisons from what a caller has at hand: pictures, clips or answers in any form."""

from collections.abc import Sequence
from typing import Any

from urt_jax.data.examples import Example, Media, Task
from urt_jax.errors import BadInputError


def make_pair(
    *,
    caption: str | None,
    question: str | None,
    images: Sequence[Any] | None,
    videos: Sequence[Any] | None,
    answers: Sequence[str] | None,
    context: Any = None,
) -> Example:
    """Build the record of one comparison from the arguments of ``RewardModel.compare``.

    Raises:
        BadInputError: arguments that name no task, or another number of candidates than two.
    """
    given = {
        name: value
        for name, value in (("images", images), ("videos", videos), ("answers", answers))
        if value is not None
    }
    needed = "give caption= with two images= or videos=, or question= with two answers= and context= (picture or clip)"
    if len(given) != 1:
        raise BadInputError(f"candidates were given as {', '.join(given) or 'nothing'}; {needed}")
    kind, candidates = next(iter(given.items()))
    if len(candidates) != 2:
        raise BadInputError(f"{kind} holds {len(candidates)} candidates; compare takes 2, rank takes any number")
    text = question if kind == "answers" else caption
    if text is None or (kind == "answers") != (context is not None):
        raise BadInputError(
            f"{kind} came with caption={caption!r}, question={question!r}, context={context!r}; {needed}"
        )
    return pair_of(candidates[0], candidates[1], caption, question, context, "pair", video=kind == "videos")


def pair_of(
    first: Any, second: Any, caption: str | None, question: str | None, context: Any, name: str, *, video: bool = False
) -> Example:
    """Build the record of two candidates: answers to a question about ``context``, or media of a caption."""
    if isinstance(first, str) and isinstance(second, str) and context is not None:
        shown = as_media(context, video=None)
        task: Task = "video_und" if shown.kind == "video" else "image_und"
        return Example(id=name, task=task, prompt=question or "", context=(shown,), candidates=(first, second))
    media = (as_media(first, video=video or None), as_media(second, video=video or None))
    task = "video_gen" if media[0].kind == "video" else "image_gen"
    return Example(id=name, task=task, prompt=caption or "", candidates=media)


def as_media(item: Any, *, video: bool | None) -> Media:
    """Take a medium as it is; an array with four axes or a list of frames is a clip, everything else a picture."""
    if isinstance(item, Media):
        return item
    clip = video if video is not None else isinstance(item, (list, tuple)) or getattr(item, "ndim", 3) == 4
    return Media("video" if clip else "image", item)
