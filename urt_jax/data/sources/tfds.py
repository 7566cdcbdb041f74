"""Rows of a prepared TensorFlow Datasets folder, ``tfds:folder/split``, read and written without TensorFlow.

Pictures stay encoded. A folder that ``write_tfds`` wrote has our own records in the feature ``record``; of another one
the features are the fields.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from urt_jax.data.examples import Example, Media
from urt_jax.data.images import encode_png, load_image
from urt_jax.data.media_bytes import read_bytes
from urt_jax.data.prompts import all_media
from urt_jax.data.sources.files import Record
from urt_jax.data.sources.rows import Rows
from urt_jax.data.sources.writing import fields_of
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError
from urt_jax.files.json_text import parse_object
from urt_jax.files.whole import write_whole

PREFIX = "tfds:"
SHARD_ROWS = 1000  # of a written folder: a block of the stream
VERSION = "1.0.0"
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class TfdsCell(Stored):
    """The bytes at a place of a row's features."""

    folder: str
    split: str
    row: int
    place: Place

    def __str__(self) -> str:
        return f"{PREFIX}{self.folder}/{self.split}, row {self.row}, {'.'.join(map(str, self.place))}"

    def read(self) -> bytes:
        """Return the cell's bytes."""
        value: Any = _row(self.folder, self.split, self.row)
        for step in self.place:
            value = value[step]
        return bytes(value)


class TfdsRows(Rows):
    """The rows of one split, a block for each shard."""

    def __init__(self, folder: str, split: str, *, root: Path | None, first_label: int) -> None:
        builder = _builder(folder)
        if split not in builder.info.splits:
            known = ", ".join(builder.info.splits) or "none"
            raise BadInputError(f"data {PREFIX}{folder}/{split}: there is no such split; it has {known}")
        self.blocks = list(builder.info.splits[split].shard_lengths)
        self._ends = list(accumulate(self.blocks))
        self._folder, self._split = folder, split
        self._root, self._first_label = Path(folder) if root is None else root, first_label

    def at(self, number: int) -> Record:
        """Return row ``number``, from 0, with cells in place of pictures."""
        row = _row(self._folder, self._split, number)
        features = _builder(self._folder).info.features
        fields = {
            name: _value(row[name], features[name], self._folder, self._split, number, (name,)) for name in features
        }
        if "record" in fields and "frames" in fields:
            fields = _own(fields)
        shard = bisect.bisect_right(self._ends, number)
        where = f"{PREFIX}{self._folder}/{self._split} row {number + 1}, shard {shard}"
        return Record(fields, where, f"{self._split}:{number + 1}", self._root, self._first_label)


def split_of(path: str) -> tuple[str, str]:
    """Return the folder and the split of ``tfds:folder/split``.

    Raises:
        BadInputError: it has another form.
    """
    folder, slash, split = path.removeprefix(PREFIX).rpartition("/")
    if not slash or not folder or not split:
        raise BadInputError(f"data {path!r}: needed tfds:folder/split, the folder with dataset_info.json")
    return folder, split


@lru_cache(8)
def _builder(folder: str) -> Any:
    import tensorflow_datasets  # takes most of a second, and only these names need it

    try:
        return tensorflow_datasets.builder_from_directory(folder)
    except Exception as error:  # of its files
        told = " ".join(str(error).split())[:200]
        raise BadInputError(
            f"data folder {folder}: it is no prepared data set ({type(error).__name__}: {told}); give the folder with "
            "dataset_info.json and features.json"
        ) from None


@lru_cache(8)
def _source(folder: str, split: str) -> tuple[Any, Any]:
    """Return the serialized rows of a split, and the parser that leaves pictures encoded."""
    from tensorflow_datasets.core.example_parser import ExampleParserNp

    builder = _builder(folder)
    try:
        return builder.as_data_source(split).data_source, ExampleParserNp(builder.info.features.get_serialized_info())
    except Exception as error:
        raise BadInputError(
            f"data folder {folder}: split {split} cannot be read ({type(error).__name__}: {str(error)[:200]}); it has "
            "to be in the array_record format"
        ) from None


@lru_cache(64)
def _row(folder: str, split: str, number: int) -> Any:
    rows, parser = _source(folder, split)
    try:
        return parser.parse_example(rows[number])
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        told = f"{PREFIX}{folder}/{split}, row {number}: {str(error)[:200]}"
        raise BadInputError(f"{told}; fetch the folder again") from None


def _value(value: Any, feature: Any, folder: str, split: str, row: int, place: Place) -> Any:
    """Return a feature's value as plain Python; pictures as cells."""
    if type(feature).__name__ == "Image":
        return TfdsCell(folder, split, row, place)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {name: _value(value[name], feature[name], folder, split, row, (*place, name)) for name in value}
    inner = getattr(feature, "feature", None)
    if inner is not None and isinstance(value, list | tuple | np.ndarray):
        return [_value(one, inner, folder, split, row, (*place, n)) for n, one in enumerate(value)]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _own(fields: dict[str, Any]) -> dict[str, Any]:
    """Return one of our own records: pictures in order, the frames of each clip together."""
    own = parse_object(str(fields["record"]).encode())
    frames, start = list(fields["frames"]), 0
    clips = []
    for length in own.pop("clip_lengths", []):
        clips.append(frames[start : start + length])
        start += length
    pictures = {"images": list(fields["images"])} if fields["images"] else {}
    return own | pictures | ({"videos": clips} if clips else {})


def write_tfds(folder: str | Path, examples: Sequence[Example], *, split: str = "train") -> None:
    """Write records as a prepared folder: ``features.json``, ``dataset_info.json`` and array_record shards.

    Pictures that are encoded keep their bytes; arrays and PIL images become PNG. Clips are lists or arrays of frames.

    Raises:
        BadInputError: a clip that is a video file, or a medium that cannot be read.
    """
    import tensorflow_datasets
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = tensorflow_datasets.features
    layout = features.FeaturesDict(
        {
            "record": features.Text(),
            "images": features.Sequence(features.Image(shape=(None, None, 3))),
            "frames": features.Sequence(features.Image(shape=(None, None, 3))),
        }
    )
    serializer = ExampleSerializer(layout.get_serialized_info())
    at = Path(folder)
    at.mkdir(parents=True, exist_ok=True)
    lengths = [len(examples[start : start + SHARD_ROWS]) for start in range(0, len(examples), SHARD_ROWS)]
    size = 0
    for shard, length in enumerate(lengths):
        name = f"{at.name}-{split}.array_record-{shard:05}-of-{len(lengths):05}"
        writer = ArrayRecordWriter(str(at / name), "group_size:1")
        for example in examples[shard * SHARD_ROWS : shard * SHARD_ROWS + length]:
            content = serializer.serialize_example(_features(example))
            size += len(content)
            writer.write(content)
        writer.close()
    layout.save_config(str(at))
    told = {"name": split, "shardLengths": [str(length) for length in lengths], "numBytes": str(size),
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}  # fmt: skip
    info = {"name": at.name, "version": VERSION, "fileFormat": "array_record", "splits": [told]}
    write_whole(at / "dataset_info.json", json.dumps(info, indent=2) + "\n")


def _features(example: Example) -> dict[str, Any]:
    media = all_media(example)
    clips = [_frames(item, example.id) for item in media if item.kind == "video"]
    fields = fields_of(example) | ({"clip_lengths": [len(clip) for clip in clips]} if clips else {})
    return {
        "record": json.dumps(fields, ensure_ascii=False).encode(),
        "images": [_encoded(item.source, example.id) for item in media if item.kind == "image"],
        "frames": [_encoded(frame, example.id) for clip in clips for frame in clip],
    }


def _frames(item: Media, name: str) -> list[Any]:
    if isinstance(item.source, list | tuple | np.ndarray):
        return list(item.source)
    raise BadInputError(f"record {name}: its clip is a file; give its frames, which a prepared folder can hold")


def _encoded(source: Any, name: str) -> bytes:
    if isinstance(source, str | Path | bytes | Stored):
        return read_bytes(source, name=f"record {name}")
    return encode_png(load_image(source, name=f"record {name}"))
