"""Tables of images with keypoints or poses: CSV and Parquet.

A row is one object in one image. Columns, in any order, others being left alone:

    file                            the image, beside the table or in a folder images there
    x0 y0 x1 y1 ...                 pixels of the keypoints, empty where one is not labelled; or
    r0 ... r8, or qw qx qy qz       rotation, row by row, or as a quaternion, object to camera, and
    tx ty tz                        translation, metres
    fx fy cx cy                     camera in pixels, where it is not one for all
    left top right bottom           box around the object, pixels
    split                           train, val or test
"""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from robustvision_core.data.poses.pinhole import nearest_rotation
from robustvision_core.data.reading.named_labels import SPLIT_COLUMNS, split_called
from robustvision_core.data.sources.arrow import require_pyarrow
from robustvision_core.data.sources.listed import FILES, separator
from robustvision_core.errors import DataError
from torch import Tensor

from diffpnp_pose.cli.reading.annotation import Annotation
from diffpnp_pose.geometry.quaternions import quaternion_to_matrix

_MATRIX, _QUATERNION, _SHIFT = tuple(f"r{k}" for k in range(9)), ("qw", "qx", "qy", "qz"), ("tx", "ty", "tz")
_CAMERA, _BOX = ("fx", "fy", "cx", "cy"), ("left", "top", "right", "bottom")


def read_csv(path: pathlib.Path) -> list[Annotation]:
    """The rows of a CSV, separated by commas, semicolons or tabs.

    Raises:
        DataError: The file is missing or no such table, or a column or value is missing.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            table = csv.DictReader(text, delimiter=separator(text), skipinitialspace=True)
            rows = list(table) if any(name.strip() for name in table.fieldnames or ()) else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV in UTF-8: {error}") from error
    return list(_annotations(path, rows, first=2))


def read_parquet(path: pathlib.Path) -> list[Annotation]:
    """The rows of a Parquet file; errors as of `read_csv`, and UserError without pyarrow."""
    pyarrow = require_pyarrow()
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}") from error
    return list(_annotations(path, rows, first=1))


def _annotations(path: pathlib.Path, rows: Any, first: int) -> Iterator[Annotation]:
    if not rows:
        raise DataError(f"{path} holds no rows")
    columns = _columns(path, {_named(name) for name in rows[0] if name is not None})
    for number, row in enumerate(rows, first):
        cells = {_named(name): value for name, value in row.items() if name is not None}
        yield _annotation(cells, columns, f"{path}, row {number}")


class _Columns(NamedTuple):
    """What of a row a table holds: names of columns, empty where it has none, and how many keypoints."""

    file: str
    split: str
    rotation: tuple[str, ...]
    camera: tuple[str, ...]
    box: tuple[str, ...]
    keypoints: int


def _named(column: Any) -> str:
    return str(column).strip().lower()


def _columns(path: pathlib.Path, names: set[str]) -> _Columns:
    file = next((name for name in FILES if name in names), None)
    rotation = next((group for group in (_MATRIX, _QUATERNION) if names.issuperset((*group, *_SHIFT))), ())
    count = next(k for k in range(len(names) + 1) if not {f"x{k}", f"y{k}"} <= names)
    if file is None or not (rotation or count):
        raise DataError(
            f"{path} has the columns {', '.join(sorted(names))[:200]}: expected file, and either x0 y0 x1 y1 ... or "
            "tx ty tz with r0 ... r8 or qw qx qy qz"
        )
    split = next((name for name in SPLIT_COLUMNS if name in names), "")
    camera, box = (group if names.issuperset(group) else () for group in (_CAMERA, _BOX))
    return _Columns(file, split, rotation, camera, box, count)


def _annotation(cells: Mapping[str, Any], columns: _Columns, where: str) -> Annotation:
    rotation = columns.rotation
    camera, box = (_numbers(cells, group, where) if group else None for group in (columns.camera, columns.box))
    if box is not None and not bool((box[2:] > box[:2]).all()):
        raise DataError(f"{where}: the box is {box.tolist()}: right must be beyond left, and bottom below top")
    return Annotation(
        _text(cells, columns.file, where),
        torch.zeros(0, 3, dtype=torch.float64) if rotation else _keypoints(cells, columns.keypoints, where),
        _pose(cells, rotation, where) if rotation else None,
        None if camera is None else _matrix(camera),
        box,
        split_called(str(cells[columns.split] or "")) if columns.split else "",
    )


def _text(cells: Mapping[str, Any], name: str, where: str) -> str:
    held = cells[name]
    if not isinstance(held, str | int | None):
        raise DataError(f"{where}: {name} holds {type(held).__name__}: expected the name of an image file")
    if held is None or not str(held).strip():
        raise DataError(f"{where} names no {name}")
    return str(held).strip()


def _number(cells: Mapping[str, Any], name: str, where: str) -> float:
    """The number in a cell, NaN where it is empty."""
    held = cells.get(name)
    try:
        value = math.nan if held is None or not str(held).strip() else float(held)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name} is {held!r}, which is no number") from None
    if math.isinf(value):
        raise DataError(f"{where}: {name} is infinite")
    return value


def _numbers(cells: Mapping[str, Any], names: Sequence[str], where: str) -> Tensor:
    values = torch.tensor([_number(cells, name, where) for name in names], dtype=torch.float64)
    if missing := [name for name, value in zip(names, values.tolist(), strict=True) if math.isnan(value)]:
        raise DataError(f"{where} has no {', '.join(missing)}")
    return values


def _keypoints(cells: Mapping[str, Any], count: int, where: str) -> Tensor:
    pixels = [[_number(cells, f"{axis}{k}", where) for axis in "xy"] for k in range(count)]
    found = torch.tensor(pixels, dtype=torch.float64)
    labelled = found.isfinite().all(1, keepdim=True)
    return torch.cat([torch.where(labelled, found, 0.0), labelled.double()], 1)


def _pose(cells: Mapping[str, Any], rotation: Sequence[str], where: str) -> tuple[Tensor, Tensor]:
    values, t = _numbers(cells, rotation, where), _numbers(cells, _SHIFT, where)
    if len(values) == len(_MATRIX):
        return nearest_rotation(values.view(1, 3, 3), where)[0].double(), t
    if not float(values.norm()) > 0:
        raise DataError(f"{where}: the quaternion is zero")
    return quaternion_to_matrix(values), t


def _matrix(camera: Tensor) -> Tensor:
    fx, fy, cx, cy = camera.tolist()
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
