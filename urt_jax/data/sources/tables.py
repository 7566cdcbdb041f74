"""Rows of parquet, arrow and csv files: columns of bytes stay in the file until a picture is decoded."""

from __future__ import annotations

import bisect
import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from urt_jax.data.sources.files import Record
from urt_jax.data.sources.rows import Rows
from urt_jax.data.stored import Stored
from urt_jax.errors import BadInputError

MAX_BLOCK_BYTES = 2 << 30  # of one column of a row group, which is read as a whole
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class TableCell(Stored):
    """The bytes at a place of a row: column, then fields and list positions, such as ("images", 0, "bytes")."""

    file: str
    block: int
    row: int
    place: Place

    def __str__(self) -> str:
        return f"{self.file}, block {self.block}, row {self.row}, {'.'.join(map(str, self.place))}"

    def read(self) -> bytes:
        """Return the cell's bytes; the block that holds them is kept for the next ones."""
        try:
            value = _column(self.file, self.block, str(self.place[0]))[self.row]
            for step in self.place[1:]:
                value = value[step]
            content = value.as_py()
        except (OSError, pa.ArrowException, IndexError, KeyError) as error:
            raise BadInputError(f"{self}: it cannot be read ({error}); fetch the file again") from None
        if not content:
            raise BadInputError(f"{self}: it holds no bytes; fetch the file again, or give the files that it names")
        return bytes(content)


class TableRows(Rows):
    """Rows of table files, a block (row group or record batch) at a time."""

    def __init__(self, files: list[str], *, root: Path | None, first_label: int, name: str) -> None:
        self._files, self._root, self._first_label = files, root, first_label
        self._places = [(file, block) for file in files for block in range(len(_blocks(file)))]
        self.blocks = [rows for file in files for rows in _blocks(file)]
        self._ends = list(accumulate(self.blocks))
        self._name = name
        for file in files[1:]:
            if not _schema(file).equals(_schema(files[0])):
                raise BadInputError(f"{file}: its columns differ from those of {files[0]}; give files of one table")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def at(self, number: int) -> Record:
        """Return row ``number`` with cells in place of bytes."""
        block = bisect.bisect_right(self._ends, number)
        row = number - (self._ends[block - 1] if block else 0)
        file, group = self._places[block]
        table = _texts(file, group)
        fields = {
            field.name: _value(
                table.column(field.name)[row] if field.name in table.column_names else None,
                field.type,
                lambda place: TableCell(file, group, row, place),
                (field.name,),
            )
            for field in _schema(file)
        }
        root = Path(file).parent if self._root is None else self._root
        return Record(fields, f"{file} row {number + 1}", f"{self._name}:{number + 1}", root, self._first_label)


def table_files(path: str) -> list[str]:
    """Return the files of a pattern, of a folder, or the one of a path.

    Raises:
        BadInputError: there is none.
    """
    if Path(path).is_dir():
        found = sorted(str(file) for kind in (".parquet", ".arrow") for file in Path(path).glob(f"*{kind}"))
    else:
        found = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    if not found:
        raise BadInputError(f"data files {path}: there is none; give a .parquet or .arrow file, a folder or a pattern")
    return found


def csv_rows(path: Path, *, root: Path, first_label: int) -> list[Record]:
    """Return the rows of a csv file with a line of column names; columns of numbers are numbers, empty cells are null.

    Raises:
        BadInputError: it cannot be read.
    """
    try:
        options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, null_values=["", "null", "NaN", "None"])
        parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
        table = pyarrow.csv.read_csv(path, convert_options=options, parse_options=parse)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"data file {path}: {error}; give a csv file with a line of column names") from None
    return [
        Record(fields, f"{path} row {n}", f"{path.stem}:{n}", root, first_label)
        for n, fields in enumerate(table.to_pylist(), start=1)
    ]


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _value(scalar: Any, kind: pa.DataType, cell: Callable[[Place], TableCell], place: Place) -> Any:
    """Return a value as plain Python; bytes as cells. ``scalar`` lacks the parts of bytes where they were not read."""
    if _is_bytes(kind):
        return cell(place) if scalar is None or scalar.is_valid else None
    if scalar is None or not scalar.is_valid:
        return None
    if pa.types.is_struct(kind):
        given = {field.name for field in scalar.type}
        return {
            field.name: _value(
                scalar[field.name] if field.name in given else None, field.type, cell, (*place, field.name)
            )
            for field in kind
        }
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_value(item, kind.value_type, cell, (*place, n)) for n, item in enumerate(scalar)]
    return scalar.as_py()


def _told(file: str, error: Exception) -> BadInputError:
    return BadInputError(f"data file {file}: {' '.join(str(error).split())[:300]}; fetch or write it again")


@lru_cache(64)
def _parquet(file: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, memory_map=True)
    except FileNotFoundError:
        raise BadInputError(
            f"data file {file}: there is no such file; give a .parquet file, a folder or a pattern"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise _told(file, error) from None


@lru_cache(64)
def _batches(file: str) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Return the schema and the record batches of an arrow file of either kind, mapped into memory."""
    try:
        try:
            reader = pa.ipc.open_file(pa.memory_map(file))
            return reader.schema, [reader.get_batch(n) for n in range(reader.num_record_batches)]
        except pa.ArrowInvalid:
            stream = pa.ipc.open_stream(pa.memory_map(file))
            return stream.schema, list(stream)
    except FileNotFoundError:
        raise BadInputError(f"data file {file}: there is no such file; give an .arrow file") from None
    except (OSError, pa.ArrowException) as error:
        raise _told(file, error) from None


def _is_arrow(file: str) -> bool:
    return file.endswith(".arrow")


@lru_cache(64)
def _schema(file: str) -> pa.Schema:
    return _batches(file)[0] if _is_arrow(file) else _parquet(file).schema_arrow


def _blocks(file: str) -> list[int]:
    if _is_arrow(file):
        return [len(batch) for batch in _batches(file)[1]]
    stated = _parquet(file).metadata
    return [stated.row_group(n).num_rows for n in range(stated.num_row_groups)]


def _leaves(file: str) -> Iterator[tuple[str, bool]]:
    """Yield the path of every leaf column of a parquet file, and whether it holds bytes."""
    schema = _parquet(file).schema
    for n in range(len(schema)):
        column = schema.column(n)
        yield column.path, column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "NONE"


@lru_cache(2)
def _texts(file: str, block: int) -> pa.Table:
    """Return a block without its columns of bytes; a list of nothing but bytes is read for its length."""
    if _is_arrow(file):
        return pa.table(_batches(file)[1][block])
    leaves = list(_leaves(file))
    texts = [path for path, is_bytes in leaves if not is_bytes]
    whole = {path.split(".")[0] for path in texts}
    alone = [path for path, is_bytes in leaves if is_bytes and "." in path and path.split(".")[0] not in whole]
    try:
        return _parquet(file).read_row_group(block, columns=[*texts, *alone])
    except (OSError, pa.ArrowException) as error:
        raise _told(file, error) from None


@lru_cache(2)
def _column(file: str, block: int, name: str) -> pa.ChunkedArray:
    """Return a whole column of a block."""
    if _is_arrow(file):
        return pa.table(_batches(file)[1][block]).column(name)
    group = _parquet(file).metadata.row_group(block)
    columns = [group.column(n) for n in range(group.num_columns)]
    size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] == name)
    if size > MAX_BLOCK_BYTES:
        raise BadInputError(
            f"{file}: column {name} of row group {block} has {size:,} bytes, and a row group is read as a whole; write "
            "the file again with fewer rows in a group, such as row_group_size=1000"
        )
    return _parquet(file).read_row_group(block, columns=[name]).column(name)
