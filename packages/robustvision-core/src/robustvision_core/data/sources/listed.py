"""Images that a CSV file lists."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TextIO

from robustvision_core.data.reading.image_files import ImageFiles
from robustvision_core.data.reading.named_labels import (
    SPLIT_COLUMNS,
    check_split,
    choose_classes,
    numbered,
    split_called,
)
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.folder import decoding
from robustvision_core.data.sources.parts import part_files
from robustvision_core.errors import DataError

FILES = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "image_name")
LABELS = ("label", "labels", "class", "class_name", "category", "target")
"""How others name the two columns."""


class Row(NamedTuple):
    """One image of a table: its file and label as written, its split, and the line of the file."""

    file: str
    label: str
    split: str
    line: int


@dataclass(frozen=True)
class Lines:
    """Says where an image is listed."""

    table: pathlib.Path
    lines: tuple[int, ...]

    def __call__(self, row: int) -> str:
        """The file and line of image number `row`."""
        return f"{self.table}, line {self.lines[row]}"


def list_csv(query: Query, own_classes: bool = False) -> ImageFiles:
    """The images that a CSV lists.

    Its first line names the columns, in any order: `file` with paths relative to the CSV, `label` with the name of the
    class, and optionally `split` with train, val or test. Without it all rows are `train`, unless there are files of
    the other splits; see `robustvision_core.data.sources.parts.part_files`. Classes are those of the training rows.

    Raises:
        DataError: The table is no CSV in UTF-8, lacks a column, or a row has no file, no label or names a file that is
            not there; the message names table and line.
    """
    rows, table = _rows_of(query.place, query.split)
    own = [row for row in rows if row.split == query.split]
    check_split(query.split, {row.split for row in rows}, str(table), "add a column split with train, val and test")
    where = Lines(table, tuple(row.line for row in own))
    paths = tuple(_path(table, row) for row in own)
    trained = [row.label for row in rows if row.split == "train"]
    classes = choose_classes([row.label for row in own], trained, None, own_classes)
    labels = numbered([row.label for row in own], classes, where)
    return ImageFiles(paths, labels, classes, f"{table}/{query.split}", where)


load_csv = decoding(list_csv)


def _rows_of(place: str, split: str) -> tuple[list[Row], pathlib.Path]:
    """The rows of a split and of `train`, and the table that has the split."""
    parts = part_files(place, ".csv")
    if len(parts) == 1 and len(files := next(iter(parts.values()))) == 1:
        rows = list(read_table(files[0], next(iter(parts))))
        return rows, files[0]
    check_split(split, parts, place, f"add {split}.csv")
    if len(parts[split]) > 1:
        raise DataError(f"{place} names {len(parts[split])} tables of {split}: expected one")
    rows = [row for part in {"train", split} & parts.keys() for row in read_table(parts[part][0], part)]
    return rows, parts[split][0]


def read_table(table: pathlib.Path, split: str) -> Iterator[Row]:
    """The rows of a CSV, those without a split of their own as of `split`; errors as of `list_csv`."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as text:
            lines = csv.reader(text, delimiter=separator(text))
            columns = _columns(table, [name.strip().lower() for name in next(lines, [])])
            for values in lines:
                if values:
                    yield _row(table, lines.line_num, values, columns, split)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is no CSV in UTF-8: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror}") from error


def separator(text: TextIO) -> str:
    """What separates the columns of a CSV that is open at its first line: a comma, a semicolon or a tab."""
    head = text.readline()
    text.seek(0)
    return max(",;\t", key=head.count)


def _columns(table: pathlib.Path, header: Sequence[str]) -> tuple[int, int, int | None]:
    """Places of file, label and split."""
    known = (FILES, LABELS, SPLIT_COLUMNS)
    found = [next((header.index(name) for name in names if name in header), None) for names in known]
    if found[0] is None or found[1] is None:
        lacks = "file" if found[0] is None else "label"
        raise DataError(
            f"{table} has the columns {', '.join(header)[:200] or 'none'}, and no {lacks}: expected a first line "
            "'file,label' or 'file,label,split'"
        )
    return found[0], found[1], found[2]


def _row(
    table: pathlib.Path, line: int, values: Sequence[str], columns: tuple[int, int, int | None], split: str
) -> Row:
    file, label, own = ("" if at is None or at >= len(values) else values[at].strip() for at in columns)
    for name, value in (("file", file), ("label", label)):
        if not value:
            raise DataError(f"{table}, line {line} has no {name}: {', '.join(values)[:200]!r}")
    return Row(file, label, split_called(own) if own else split, line)


def _path(table: pathlib.Path, row: Row) -> pathlib.Path:
    path = table.parent / pathlib.Path(row.file).expanduser()
    if not path.is_file():
        raise DataError(f"{table}, line {row.line}: there is no file {path}; paths are relative to the CSV")
    return path
