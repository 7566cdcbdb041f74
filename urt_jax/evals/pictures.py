"""A record for a report: its question, and its pictures as data URLs."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from urt_jax.data.examples import Example, Media
from urt_jax.data.images import encode_data_url, load_image
from urt_jax.data.video import load_frames

_LARGEST_SIDE = 448  # pixels of an embedded picture
_LOSSLESS_SIDE = 160  # largest side in pixels of a picture that is embedded unchanged
_MOST_FRAMES = 6  # per clip


def picture_url(picture: np.ndarray) -> str:
    """Return a ``uint8 [H, W, 3]`` picture as a data URL: small ones unchanged, large ones scaled down as JPEG."""
    if max(picture.shape[:2]) <= _LOSSLESS_SIDE:
        return encode_data_url(picture)
    image = Image.fromarray(picture)
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def question_shown(example: Example, *, swapped: bool) -> dict[str, Any]:
    """Return a record's values for the report's template, in the record's own order; ``swapped`` is only displayed.

    Raises:
        BadInputError: a picture or clip cannot be read.
    """
    noun, label = example.noun or "Candidate", example.label
    return {
        "id": example.id,
        "prompt": example.prompt or example.text or "",
        "task": (example.task or "").replace("_", " "),
        "difficulty": example.meta.get("difficulty", ""),
        "swapped": swapped,
        "noun": noun,
        "label": f"{noun} {label} is better" if isinstance(label, int) else "a tie" if label == "tie" else "no label",
        "context": [_pictures(media, f"record {example.id}") for media in example.context],
        "candidates": [
            {"better": label == n, "name": f"{noun} {n}", **_candidate(item, f"record {example.id}, candidate {n}")}
            for n, item in enumerate(example.candidates, 1)
        ],
    }


def _candidate(item: Media | str, name: str) -> dict[str, Any]:
    return {"text": item, "frames": []} if isinstance(item, str) else {"text": "", "frames": _pictures(item, name)}


def _pictures(media: Media, name: str) -> list[tuple[str, bool]]:
    """Return (data URL, whether it is small and so to be scaled without smoothing) of a picture or a clip's frames."""
    if media.kind == "image":
        frames = [load_image(media, name=name)]
    else:
        frames = list(load_frames(media, name=name, max_frames=_MOST_FRAMES))
    return [(picture_url(frame), max(frame.shape[:2]) <= _LOSSLESS_SIDE) for frame in frames]
