"""Tables of images and labels: Parquet files, and sets that Hugging Face `datasets` saved to disk."""

from __future__ import annotations

import functools
import json
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustvision_core.config import read_object
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
from robustvision_core.errors import DataError, UserError

IMAGES = ("image", "img", "images", "picture", "photo", "pixel_values", "file", "file_name", "path", "image_path")
LABELS = ("label", "labels", "fine_label", "class", "class_name", "category", "target", "y")
"""How others name the two columns."""

GROUPS = 4  # row groups of Parquet files that are kept in memory
LOCK = threading.Lock()


@dataclass(frozen=True)
class Block:
    """Rows of a table that are read together: a row group of a Parquet file, or a whole Arrow file.

    Attributes:
        path: The file.
        group: Number of the row group; -1 for an Arrow file, which the system maps.
        start: Number of its first row in the file.
        rows: How many.
        stamp: When the file was written.
    """

    path: pathlib.Path
    group: int
    start: int
    rows: int
    stamp: int

    def column(self, name: str) -> Any:
        """The values of a column, as pyarrow has them."""
        with LOCK:
            return _column(self.path, self.group, name, self.stamp)


@dataclass(frozen=True)
class ArrowImage:
    """An image in a row of a table."""

    block: Block
    column: str
    row: int

    def read_bytes(self) -> bytes:
        """The file that the row holds, or names.

        Raises:
            DataError: It is neither.
        """
        held = self.block.column(self.column)[self.row].as_py()
        path = held.get("path") if isinstance(held, dict) else held
        held = held.get("bytes") if isinstance(held, dict) else held
        if isinstance(held, bytes):
            return held
        if not isinstance(path, str):
            raise DataError(f"{self} has no image")
        return (self.block.path.parent / path).read_bytes()

    def __str__(self) -> str:
        return f"{self.block.path}, row {self.block.start + self.row}"


@dataclass(frozen=True)
class ArrowImages(Sequence[ArrowImage]):
    """The images of a table's rows.

    Attributes:
        blocks: Of the table.
        column: Their column.
        rows: Block and row in it of each.
    """

    blocks: tuple[Block, ...]
    column: str
    rows: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        """The image of a number, or a list of those of a slice."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        block, row = self.rows[place]
        return ArrowImage(self.blocks[block], self.column, row)


def list_parquet(query: Query, own_classes: bool = False) -> ImageFiles:
    """The images of Parquet files.

    `parquet:PATH` is a file, a pattern, or a folder; see `robustvision_core.data.sources.parts.part_files`. A column
    `image` holds files' bytes, structs of `bytes` and `path`, or paths relative to the table; a column `label` numbers
    or names; an optional column `split` train, val or test. Names of classes that `datasets` wrote are used. Whole row
    groups are read for an image, so files meant for random access have small ones.

    Raises:
        UserError: pyarrow is missing.
        DataError: A file is damaged, lacks a column, or a row has no image or label; the message names file and row.
    """
    parquet = require_pyarrow().parquet
    parts = part_files(query.place, ".parquet")

    def blocks(path: pathlib.Path) -> tuple[Any, list[Block]]:
        opened = parquet.ParquetFile(path)
        sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
        stamp = path.stat().st_mtime_ns
        return opened.schema_arrow, [Block(path, g, sum(sizes[:g]), rows, stamp) for g, rows in enumerate(sizes)]

    return _listed(query, parts, blocks, own_classes)


load_parquet = decoding(list_parquet)


def list_hf(query: Query, own_classes: bool = False) -> ImageFiles:
    """The images of a folder that `save_to_disk` of a Hugging Face `Dataset` or `DatasetDict` wrote.

    Columns and errors as of `list_parquet`. Its files are mapped into memory, so that any image is read at once; the
    library `datasets` is not needed, only pyarrow.
    """
    require_pyarrow()
    top = pathlib.Path(query.place)
    splits = _json(top / "dataset_dict.json").get("splits") if (top / "dataset_dict.json").is_file() else None
    folders = {split_called(name): top / name for name in splits} if splits else {"train": top}
    check_split(query.split, folders, str(top), "save a DatasetDict with it, as train_test_split makes")
    needed = {split: folder for split, folder in folders.items() if split in ("train", query.split)}
    parts = {split: [folder / name for name in _arrow_files(folder)] for split, folder in needed.items()}

    def blocks(path: pathlib.Path) -> tuple[Any, list[Block]]:
        stamp = path.stat().st_mtime_ns
        table = _mapped(path, stamp)
        return table.schema, [Block(path, -1, 0, table.num_rows, stamp)]

    return _listed(query, parts, blocks, own_classes)


load_hf = decoding(list_hf)


def _listed(
    query: Query,
    parts: Mapping[str, Sequence[pathlib.Path]],
    blocks_of: Callable[[pathlib.Path], tuple[Any, list[Block]]],
    own_classes: bool,
) -> ImageFiles:
    """The images of one split; `blocks_of` gives schema and blocks of a file."""
    rows: dict[str, list[tuple[str, int, int]]] = {}
    blocks: list[Block] = []
    image, known = "", None
    for split in [part for part in parts if len(parts) == 1 or part in ("train", query.split)]:
        for path in parts[split]:
            schema, own = _checked(path, blocks_of)
            columns = _columns(path, schema)
            image, known = columns[0], known or _names(schema, columns[1])
            for block in own:
                for label, part, row in _read_rows(block, columns, known, split):
                    rows.setdefault(part, []).append((label, len(blocks), row))
                blocks.append(block)
    there = rows if len(parts) == 1 else parts
    check_split(query.split, there, query.place, "add files of it, or a column split with train, val and test")
    own_rows = rows.get(query.split, [])
    images = ArrowImages(tuple(blocks), image, tuple((block, row) for _, block, row in own_rows))
    trained = [label for label, *_ in rows.get("train", [])]
    classes = choose_classes([label for label, *_ in own_rows], trained, known, own_classes)
    labels = numbered([label for label, *_ in own_rows], classes, lambda row: str(images[row]))
    return ImageFiles(images, labels, classes, f"{query.place}/{query.split}")


def _checked(
    path: pathlib.Path, blocks_of: Callable[[pathlib.Path], tuple[Any, list[Block]]]
) -> tuple[Any, list[Block]]:
    try:
        return blocks_of(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these two
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as a table: {cause}") from error


def _columns(path: pathlib.Path, schema: Any) -> tuple[str, str, str | None]:
    """Names of the columns of image, label and split."""
    names = {name.lower(): name for name in schema.names}
    image = next((names[name] for name in IMAGES if name in names), None)
    label = next((names[name] for name in LABELS if name in names), None)
    if image is None or label is None:
        raise DataError(
            f"{path} has the columns {', '.join(schema.names)[:200]}, and no "
            f"{'image' if image is None else 'label'}: expected 'image' and 'label'; rename them"
        )
    kind = schema.field(image).type
    if not any(word in str(kind) for word in ("binary", "string", "bytes")) or str(kind).startswith("list"):
        raise DataError(f"{path}: column {image} holds {kind}: expected files' bytes, {{bytes, path}} or paths")
    return image, label, next((names[name] for name in SPLIT_COLUMNS if name in names), None)


def _names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The class names that `datasets` wrote into the schema, or None."""
    try:
        held = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, held)) or None


def _read_rows(
    block: Block, columns: tuple[str, str, str | None], known: Sequence[str] | None, split: str
) -> Iterator[tuple[str, str, int]]:
    """Label, split and row of every row of a block."""
    _, label, part = columns
    labels = block.column(label).to_pylist()
    splits = block.column(part).to_pylist() if part else [split] * block.rows
    for row, (value, own) in enumerate(zip(labels, splits, strict=True)):
        if known and type(value) is int and 0 <= value < len(known):
            value = known[value]
        if not isinstance(value, str | int) or value == "" or value == -1:
            raise DataError(f"{block.path}, row {block.start + row} has no label, but {value!r}")
        yield str(value), split_called(str(own)), row


@functools.lru_cache(maxsize=GROUPS)
def _column(path: pathlib.Path, group: int, name: str, stamp: int) -> Any:
    if group < 0:
        return _mapped(path, stamp).column(name)
    return require_pyarrow().parquet.ParquetFile(path).read_row_group(group, [name]).column(name)


@functools.lru_cache(maxsize=256)
def _mapped(path: pathlib.Path, stamp: int) -> Any:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        return pyarrow.ipc.open_stream(source).read_all()


def _arrow_files(folder: pathlib.Path) -> list[str]:
    """Names of the Arrow files of a saved set."""
    state = folder / "state.json"
    if not state.is_file():
        raise DataError(f"{folder} holds no set that datasets saved: expected state.json or dataset_dict.json there")
    entries = _json(state).get("_data_files", [])
    found = [str(entry["filename"]) for entry in entries if isinstance(entry, dict) and "filename" in entry]
    if not found:
        raise DataError(f"{state} names no data files")
    return found


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return read_object(path, DataError)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def require_pyarrow() -> Any:
    """The library, with what reads Parquet and Arrow files.

    Raises:
        UserError: It is not installed.
    """
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise UserError('parquet: and hf: need pyarrow: pip install "robustvision-core[datasets]"') from None
    return pyarrow
