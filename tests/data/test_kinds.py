"""The same twenty pairs in every kind of source: same records, same pixels; and what is refused before any work."""

import csv
import io
import json
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from urt_jax.data.examples import Example, Media
from urt_jax.data.images import load_image
from urt_jax.data.sources import read_examples
from urt_jax.data.sources.archives import members
from urt_jax.data.sources.hub import HubName, hub_name
from urt_jax.data.sources.kinds import is_there, open_rows
from urt_jax.data.sources.tables import TableCell
from urt_jax.data.sources.tfds import write_tfds
from urt_jax.data.stored import Stored
from urt_jax.data.video import load_frames
from urt_jax.errors import BadInputError

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 255, (6, 5, 3), dtype=np.uint8) for _ in range(40)]
NAMES = [f"pictures/{n:02}.png" for n in range(40)]
ROWS = [
    {"id": f"r{n}", "caption": f"caption {n}", "images": NAMES[2 * n : 2 * n + 2], "label": 1 + n % 2, "rater": n}
    for n in range(20)
]


def encoded(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


BYTES = [encoded(picture) for picture in PICTURES]
Cells = Callable[[int], Any]


def rows_with(cell: Cells) -> list[dict[str, Any]]:
    """Return the rows with a cell for each picture."""
    return [{**row, "images": [cell(2 * n), cell(2 * n + 1)]} for n, row in enumerate(ROWS)]


def folder(at: Path) -> Path:
    (at / "pictures").mkdir()
    for name, content in zip(NAMES, BYTES):
        (at / name).write_bytes(content)
    (at / "pool.json").write_text(json.dumps(ROWS))
    return at / "pool.json"


def json_and_zip(at: Path) -> Path:
    with zipfile.ZipFile(at / "images.zip", "w") as file:
        for name, content in zip(NAMES, BYTES):
            file.writestr(name, content)
    (at / "pool.json").write_text(json.dumps(ROWS))
    return at / "pool.json"


def zip_below_its_name(at: Path) -> Path:
    with zipfile.ZipFile(at / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in zip(NAMES, BYTES):
            file.writestr(f"./{name}", content)
    rows = rows_with(lambda n: Path(NAMES[n]).name)
    (at / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return at / "pool.jsonl"


def add(file: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    file.addfile(info, io.BytesIO(content))


def json_and_tar(at: Path) -> Path:
    with tarfile.open(at / "images.tar", "w") as file:
        for name, content in zip(NAMES, BYTES):
            add(file, name, content)
    (at / "pool.json").write_text(json.dumps(ROWS))
    return at / "pool.json"


def table(cell: Cells = lambda n: {"bytes": BYTES[n], "path": NAMES[n]}) -> pa.Table:
    return pa.Table.from_pylist(rows_with(cell))


def parquet(at: Path) -> Path:
    pq.write_table(table(), at / "pool.parquet", row_group_size=7)
    return at / "pool.parquet"


def parquet_folder(at: Path) -> Path:
    for number in range(2):
        pq.write_table(table().slice(10 * number, 10), at / f"pool-{number}.parquet", row_group_size=4)
    return at


def parquet_of_bare_bytes(at: Path) -> Path:
    pq.write_table(table(lambda n: BYTES[n]), at / "pool.parquet", row_group_size=6)
    return at / "pool.parquet"


def parquet_without_names(at: Path) -> Path:
    pq.write_table(table(lambda n: {"bytes": BYTES[n]}), at / "pool.parquet", row_group_size=6)
    return at / "pool.parquet"


def arrow_file(at: Path) -> Path:
    with pa.ipc.new_file(at / "pool.arrow", table().schema) as file:
        file.write_table(table(), max_chunksize=6)
    return at / "pool.arrow"


def arrow_stream(at: Path) -> Path:
    with pa.ipc.new_stream(at / "pool.arrow", table().schema) as file:
        file.write_table(table(), max_chunksize=6)
    return at / "pool.arrow"


def comma_separated(at: Path) -> Path:
    folder(at)
    with open(at / "pool.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "caption", "jpg_0", "jpg_1", "label", "rater"])
        for row in ROWS:
            writer.writerow([row["id"], row["caption"], *row["images"], row["label"], row["rater"]])
    return at / "pool.csv"


def webdataset(at: Path) -> str:
    for shard in range(2):
        with tarfile.open(at / f"pool-{shard:03}.tar", "w") as file:
            for n in range(10 * shard, 10 * shard + 10):
                plain = {key: value for key, value in ROWS[n].items() if key != "images"}
                add(file, f"./s/{n:04}.json", json.dumps(plain).encode())
                for place in range(2):
                    add(file, f"./s/{n:04}.{place}.png", BYTES[2 * n + place])
    return str(at / "pool-{000..001}.tar")


def webdataset_that_names_its_pictures(at: Path) -> Path:
    with tarfile.open(at / "pool.tar", "w") as file:
        for n, row in enumerate(ROWS):
            named = {**row, "images": [f"{n}.b.png", f"{n}.a.png"]}
            add(file, f"{n}.json", json.dumps(named).encode())
            add(file, f"{n}.a.png", BYTES[2 * n + 1])
            add(file, f"{n}.b.png", BYTES[2 * n])
    return at / "pool.tar"


def prepared(at: Path) -> str:
    write_tfds(at / "set", read_examples(folder(at)), split="train")
    return f"tfds:{at / 'set'}/train"


def prepared_by_others(at: Path) -> str:
    features = tfds.features
    picture = features.Image(shape=(None, None, 3))
    layout = features.FeaturesDict(
        {"id": features.Text(), "caption": features.Text(), "jpg_0": picture, "jpg_1": picture,
         "label": np.int64, "rater": np.int64}
    )  # fmt: skip
    serializer = ExampleSerializer(layout.get_serialized_info())
    (at / "set").mkdir()
    writer = ArrayRecordWriter(str(at / "set" / "set-test.array_record-00000-of-00001"), "group_size:1")
    for n, row in enumerate(ROWS):
        plain = {key: row[key] for key in ("id", "caption", "label", "rater")}
        writer.write(serializer.serialize_example({**plain, "jpg_0": BYTES[2 * n], "jpg_1": BYTES[2 * n + 1]}))
    writer.close()
    layout.save_config(str(at / "set"))
    split = {"name": "test", "shardLengths": ["20"], "numBytes": "9",
             "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}  # fmt: skip
    told = {"name": "set", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (at / "set" / "dataset_info.json").write_text(json.dumps(told))
    return f"tfds:{at / 'set'}/test"


KINDS = [folder, json_and_zip, zip_below_its_name, json_and_tar, parquet, parquet_folder, parquet_of_bare_bytes,
         parquet_without_names, arrow_file, arrow_stream, comma_separated, webdataset,
         webdataset_that_names_its_pictures, prepared, prepared_by_others]  # fmt: skip


def pixels(example: Example) -> list[np.ndarray]:
    return [load_image(item, name="x") for item in example.candidates]


def check(examples: list[Example]) -> None:
    assert [(e.id, e.prompt, e.label, e.meta["rater"], e.task) for e in examples] == [
        (row["id"], row["caption"], row["label"], row["rater"], "image_gen") for row in ROWS
    ]
    for n, example in enumerate(examples):
        for place, found in enumerate(pixels(pickle.loads(pickle.dumps(example)))):
            np.testing.assert_array_equal(found, PICTURES[2 * n + place])


@pytest.mark.parametrize("write", KINDS, ids=lambda kind: kind.__name__)
def test_the_same_records_and_pixels(write: Callable[[Path], Any], tmp_path: Path) -> None:
    path = write(tmp_path)
    assert is_there(str(path))
    check(read_examples(path, require_label=True))
    rows = open_rows(path)
    assert len(rows) == sum(rows.blocks) == 20
    assert rows.at(13).fields == list(rows)[13].fields


@pytest.mark.parametrize("write", [parquet, arrow_file, arrow_stream, webdataset], ids=lambda kind: kind.__name__)
def test_large_kinds_hold_places_and_no_bytes(write: Callable[[Path], Any], tmp_path: Path) -> None:
    rows = open_rows(write(tmp_path))
    assert rows.streamed
    assert len(rows.blocks) > 1
    held = pickle.dumps(read_examples(write(tmp_path)) if write is not webdataset else list(rows))
    assert not any(content in held for content in BYTES)


def test_media_in_an_archive_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    json_and_zip(tmp_path)
    (tmp_path / "images.zip").rename(tmp_path / "elsewhere" / "x.zip")
    check(read_examples(tmp_path / "pool.json", media_root=tmp_path / "elsewhere" / "x.zip"))
    with pytest.raises(BadInputError, match=r"media file .*pictures/00\.png is missing"):
        read_examples(tmp_path / "pool.json")
    (tmp_path / "pool.json").write_text(json.dumps([{**ROWS[0], "images": ["gone.png", "gone.png"]}]))
    with pytest.raises(BadInputError, match=r"x\.zip has no member gone\.png"):
        read_examples(tmp_path / "pool.json", media_root=tmp_path / "elsewhere" / "x.zip")


def test_a_clip_in_a_table(tmp_path: Path) -> None:
    stream = io.BytesIO()
    first, *others = [Image.fromarray(picture) for picture in PICTURES[:3]]
    first.save(stream, format="PNG", save_all=True, append_images=others)
    cell = {"bytes": stream.getvalue(), "path": "x.png"}
    row = {"caption": "x", "videos": [cell, cell], "label": 1}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "clips.parquet")
    (example,) = read_examples(tmp_path / "clips.parquet")
    assert example.task == "video_gen"
    assert isinstance(example.candidates[0], Media)
    np.testing.assert_array_equal(load_frames(example.candidates[0], name="x"), np.stack(PICTURES[:3]))


class FakeDataset:
    """A data set as the library returns it after a download."""

    split = "train"

    def __init__(self, file: Path) -> None:
        self.cache_files = [{"filename": str(file)}]


def test_a_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(name: str, config: str | None, *, revision: str | None, split: str | None) -> Any:
        asked.append((name, config, revision, split))
        return FakeDataset(arrow_stream(tmp_path))

    monkeypatch.setattr(datasets, "load_dataset", load)
    check(read_examples("hf:org/name@main:cfg/train"))
    assert asked == [("org/name", "cfg", "main", "train")]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": 1, "test": 2})
    with pytest.raises(BadInputError, match="it has the splits train, test; add one, as hf:org/name/train"):
        read_examples("hf:org/name")

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(BadInputError, match=r"did not give it \(ConnectionError: no route to host\); check the name"):
        read_examples("hf:org/name")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("hf:a/b", ("a/b", None, None, None)),
        ("hf:a/b/train", ("a/b", None, None, "train")),
        ("hf:a/b:c/train", ("a/b", None, "c", "train")),
        ("hf:a/b@v1.0:c", ("a/b", "v1.0", "c", None)),
        ("hf:a/b@refs/convert/parquet:c/test", ("a/b", "refs/convert/parquet", "c", "test")),
    ],
)
def test_names_of_the_hub(path: str, parts: tuple[Any, ...]) -> None:
    assert hub_name(path) == HubName(*parts)


@pytest.mark.parametrize("path", ["hf:a", "hf:a/b/c/d", "hf:", "hf:a b/c"])
def test_a_name_of_another_form(path: str) -> None:
    with pytest.raises(BadInputError, match=r"needed hf:org/name\[@revision\]"):
        hub_name(path)


def a_link(file: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("x.png")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    file.addfile(info)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda file: add(file, "../x.png", b"x"), "member '../x.png' lies outside its folder"),
        (lambda file: add(file, "/x.png", b"x"), "member '/x.png' lies outside its folder"),
        (a_link, "'x.png' is a link or a device; pack the files themselves"),
    ],
)
def test_a_tar_with_members_elsewhere(fill: Any, message: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        fill(file)
    with pytest.raises(BadInputError, match=message):
        members(tmp_path / "x.tar")
    with pytest.raises(BadInputError, match=message):
        read_examples(tmp_path / "x.tar")


def test_a_zip_with_members_elsewhere_or_a_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("../x.png", b"x")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(BadInputError, match="lies outside its folder"):
        members(tmp_path / "a.zip")
    with pytest.raises(BadInputError, match=r"'link\.png' is a link"):
        members(tmp_path / "b.zip")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.parquet", "x.arrow"])
@pytest.mark.parametrize("content", [b"", b"not one", b"PK\x03\x04" + bytes(60)], ids=["empty", "words", "cut"])
def test_a_file_that_is_none_of_its_kind(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=r"x\.(zip|tar|parquet|arrow)"):
        members(tmp_path / name) if name[-3:] in ("zip", "tar") else open_rows(tmp_path / name)


def test_a_cut_archive_and_a_cut_table_say_so_when_they_are_read(tmp_path: Path) -> None:
    json_and_tar(tmp_path)
    (example, *_) = read_examples(tmp_path / "pool.json")
    (tmp_path / "images.tar").write_bytes((tmp_path / "images.tar").read_bytes()[:600])
    assert isinstance(example.candidates[0], Media)
    with pytest.raises(BadInputError, match=r"x: .*images\.tar:pictures/00\.png: the archive ends after 88 of"):
        load_image(example.candidates[0], name="x")
    with pytest.raises(BadInputError, match="it cannot be read"):
        TableCell(str(parquet(tmp_path)), 0, 999, ("images", 0, "bytes")).read()
    with pytest.raises(BadInputError, match="there is no such file"):
        TableCell(str(tmp_path / "gone.parquet"), 0, 0, ("images",)).read()


def test_a_cell_without_bytes_and_tables_that_differ(tmp_path: Path) -> None:
    made = rows_with(lambda n: {"bytes": None if n == 0 else BYTES[n], "path": NAMES[n]})
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "a.parquet")
    (first, *_) = read_examples(tmp_path / "a.parquet")
    assert isinstance(first.candidates[0], Media)
    with pytest.raises(BadInputError, match=r"images\.0\.bytes: it holds no bytes"):
        load_image(first.candidates[0], name="x")
    pq.write_table(table().drop_columns(["rater"]), tmp_path / "b.parquet")
    with pytest.raises(BadInputError, match=r"b\.parquet: its columns differ from those of .*a\.parquet"):
        open_rows(tmp_path)


def test_a_column_of_the_wrong_type_is_skipped_with_its_reason(tmp_path: Path) -> None:
    made = [{**row, "label": "first"} for row in rows_with(lambda n: {"bytes": BYTES[n], "path": None})]
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "x.parquet")
    with pytest.raises(BadInputError, match=r"x\.parquet row 1 \(id r0\): label 'first'; needed 1, 2"):
        read_examples(tmp_path / "x.parquet")


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.mp3").write_bytes(b"x")
    for path, message in (
        ("gone.json", "no such file; check the path"), ("gone.parquet", "no such file"),
        ("gone", "there is no such file; give hf:org"),
        ("x.mp3", r"\.mp3 ending; known are hf:org"), ("gone-{000..003}.tar", "cannot be read"),
        ("x-{003..001}.tar", "has no or more than"), ("*.parquet", "there is none"),
    ):  # fmt: skip
        with pytest.raises(BadInputError, match=message):
            read_examples(tmp_path / path)
        assert path == "x.mp3" or not is_there(str(tmp_path / path))


def test_a_stored_medium_is_read_by_its_kind() -> None:
    with pytest.raises(NotImplementedError):
        Stored().read()


def test_a_prepared_folder_keeps_every_kind_of_record(tmp_path: Path) -> None:
    clip = Media("video", [encoded(picture) for picture in PICTURES[:3]], fps=2.0)
    picture = Media("image", PICTURES[0])
    records = [
        Example("clips", "video_gen", "a", candidates=(clip, clip), label="tie"),
        Example("edit", "image_edit", "b", context=(picture,), candidates=(picture, picture), label=2),
        Example("answers", "image_und", "c?", context=(picture,), candidates=("x", "y"), label=1, response="z"),
        Example("group", "image_gen", "d", candidates=(picture,) * 3, ranking=(2, 1, 2)),
    ]
    write_tfds(tmp_path / "set", records, split="a")
    found = read_examples(f"tfds:{tmp_path / 'set'}/a")
    assert [(e.id, e.task, e.label, e.ranking, len(e.context), len(e.candidates)) for e in found] == [
        (e.id, e.task, e.label, e.ranking, len(e.context), len(e.candidates)) for e in records
    ]
    assert found[2].response == "z"
    assert isinstance(found[0].candidates[1], Media)
    assert found[0].candidates[1].fps == 2.0
    np.testing.assert_array_equal(load_frames(found[0].candidates[1], name="x"), np.stack(PICTURES[:3]))
    np.testing.assert_array_equal(load_image(found[1].context[0], name="x"), PICTURES[0])
    assert "tensorflow" not in sys.modules
    with pytest.raises(BadInputError, match="its clip is a file; give its frames"):
        write_tfds(tmp_path / "no", [Example("f", "video_gen", "a", candidates=(Media("video", "x.mp4"),) * 2)])


def test_a_folder_that_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="it is no prepared data set"):
        open_rows(f"tfds:{tmp_path}/train")
    with pytest.raises(BadInputError, match="needed tfds:folder/split"):
        open_rows("tfds:train")
    path = prepared(tmp_path)
    with pytest.raises(BadInputError, match="there is no such split; it has train"):
        open_rows(path.replace("/train", "/test"))
