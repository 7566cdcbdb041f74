"""Timing of the input: records of generated pictures and videos are encoded by several numbers of workers.

As in the stages, encoded pictures and videos are decoded and cut into patches, up to collation. The patches are those
of Qwen2.5-VL-7B; the tokenizer is the shipped judge's.
"""

import time
from dataclasses import replace
from io import BytesIO
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from urt_jax.data.examples import Chat, FramePicking, Media
from urt_jax.data.tokenizer import load_tokenizer
from urt_jax.families.presets import preset
from urt_jax.families.processor import NamedChat, Processor, encoding_workers
from urt_jax.families.qwen2_5_vl import DEFAULT_GEOMETRY, FAMILY
from urt_jax.planning.workloads import ASSETS, RowCounts

COUNTS = (0, 1, 2)  # numbers of workers
PIXELS_AT_ONCE = 2**24  # pixels encoded for one figure, approximately
JPEG_SIDE, JPEG_QUALITY = 1024, 90
CLIP_SIZE, CLIP_FRAMES, CLIP_RATE = (720, 1280), 96, 24  # 4 seconds of a coded video
PICKED = FramePicking(max_frames=8, fps=2.0)
PUBLISHED_PICTURES = f"2 JPEGs of {JPEG_SIDE} x {JPEG_SIDE}"
PUBLISHED_CLIPS = f"2 videos, {PICKED.max_frames} frames of {CLIP_SIZE[0]} x {CLIP_SIZE[1]} each"
QUESTION = "Which of the two is better?"


class Kind(NamedTuple):
    """Records of one kind; ``pictures`` is the number of pictures, or of picked video frames, of one record."""

    name: str
    pictures: int
    chats: tuple[NamedChat, ...]


class InputCase:
    """Encodes the same records in this process, by one and by two workers; the first repetition starts the workers."""

    def __init__(self, rows: RowCounts, *, seed: int, quick: bool = False) -> None:
        rng = np.random.default_rng([seed, 8])
        kinds = [jpegs(rng, f"its own, {rows.pictures} of {rows.picture_side} x {rows.picture_side}", rows.pictures,
                       rows.picture_side, quick=quick)]  # fmt: skip
        if not quick:
            kinds += [jpegs(rng, PUBLISHED_PICTURES, 2, JPEG_SIDE), videos(rng)]
        self._kinds, processor = kinds, input_processor()
        self._workers = {count: encoding_workers(processor, max_tokens=None, count=count) for count in COUNTS}

    @property
    def pictures(self) -> dict[str, int]:
        """Pictures of one record, by the name of its kind."""
        return {kind.name: kind.pictures for kind in self._kinds}

    def repeat(self) -> dict[str, float]:
        """Return seconds per record as ``<kind>/<workers>/wall`` and ``.../cpu``, the latter of this process only."""
        seconds: dict[str, float] = {}
        for kind in self._kinds:
            for count, workers in self._workers.items():
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in workers.in_order(workers.begin(chat) for chat in kind.chats):
                    pass
                seconds[f"{kind.name}/{count}/wall"] = (time.perf_counter() - wall) / len(kind.chats)
                seconds[f"{kind.name}/{count}/cpu"] = (time.process_time() - cpu) / len(kind.chats)
        return seconds

    def close(self) -> None:
        """End the workers."""
        for workers in self._workers.values():
            workers.close()


def jpegs(rng: np.random.Generator, name: str, pictures: int, side: int, *, quick: bool = False) -> Kind:
    """Return records with JPEGs."""
    count = 4 if quick else min(max(PIXELS_AT_ONCE // (pictures * side * side), 8), 256)
    chats = []
    for number in range(count):
        shown = []
        for _ in range(pictures):
            encoded = BytesIO()
            Image.fromarray(natural(rng, side, side)).save(encoded, "JPEG", quality=JPEG_QUALITY)
            shown.append(Media("image", encoded.getvalue()))
        chats.append(NamedChat(_asked("image", images=tuple(shown)), f"{name} {number}"))
    return Kind(name, pictures, tuple(chats))


def videos(rng: np.random.Generator) -> Kind:
    """Return records with two videos each."""
    films = tuple(Media("video", _coded(rng), picking=PICKED) for _ in range(2))
    chats = [NamedChat(_asked("video", videos=films), f"{PUBLISHED_CLIPS} {number}") for number in range(6)]
    return Kind(PUBLISHED_CLIPS, 2 * (PICKED.max_frames or 0), tuple(chats))


def natural(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a picture uint8 [H, W, 3] of soft shapes and grain; its JPEG is about as large as a photograph's."""
    coarse = rng.integers(0, 256, (max(height // 16, 1), max(width // 16, 1), 3), np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 6, soft.shape)
    return np.clip(soft + grain, 0, 255).astype(np.uint8)


def input_processor() -> Processor:
    """Return the processor of Qwen2.5-VL-7B with the tokenizer of the shipped judge."""
    tokenizer, config = load_tokenizer(ASSETS / "urt-tiny"), preset("qwen2_5_vl_7b")
    named = {"image_token_id": FAMILY.image_placeholder, "video_token_id": FAMILY.video_placeholder}
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in named.items()}
    return Processor(FAMILY, replace(config, **ids), DEFAULT_GEOMETRY, tokenizer)


def _asked(kind: str, *, images: tuple[Media, ...] = (), videos: tuple[Media, ...] = ()) -> Chat:
    content = [{"type": kind} for _ in (*images, *videos)] + [{"type": "text", "text": QUESTION}]
    return Chat([{"role": "user", "content": content}], images, videos)


def _coded(rng: np.random.Generator) -> bytes:
    """Return a video of a moving picture as the bytes of an mp4."""
    height, width = CLIP_SIZE
    scene, file = natural(rng, height + CLIP_FRAMES, width + CLIP_FRAMES), BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=CLIP_RATE)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = height, width, "yuv420p", 4_000_000
        for n in range(CLIP_FRAMES):
            pixels = np.ascontiguousarray(scene[n : n + height, n : n + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()
