"""Triangle meshes in PLY files, the Stanford polygon format."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import torch

from robustvision_core.data.poses.pose_set import Mesh
from robustvision_core.errors import DataError

Array = np.ndarray[Any, Any]

GREY = 0.6  # of meshes without colours
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


class _Property(NamedTuple):
    name: str
    type: str
    length: str = ""  # the type of the length of a list; empty for a number


class _Element(NamedTuple):
    name: str
    rows: int
    properties: list[_Property]


def read_ply(raw: bytes, name: str, scale: float = 1.0) -> Mesh:
    """The vertices and triangles of a PLY file, ASCII or binary.

    Args:
        raw: The file.
        name: What to call it in errors.
        scale: Multiplies the vertices, as 0.001 for files in millimetres.

    Returns:
        The mesh; a face's colour is the mean of its corners', grey where the file has none.

    Raises:
        DataError: The file is truncated, or no PLY file of triangles.
    """
    try:
        order, elements, start = _header(raw)
        held = _ascii(raw[start:], elements) if order == "" else _binary(raw, start, elements, order)
        vertex, face = held["vertex"], held["face"]
        corners = face.get("vertex_indices", face.get("vertex_index"))
        if corners is None or corners.ndim != 2 or corners.shape[1] != 3:
            raise DataError(f"{name}: its faces are no triangles: triangulate it")
        with np.errstate(over="ignore"):
            points = np.stack([vertex[axis] for axis in "xyz"], 1).astype(np.float32) * np.float32(scale)
        if not np.isfinite(points).all():
            raise ValueError("a vertex is not finite")
        faces = torch.from_numpy(corners.astype(np.int64))
    except (ValueError, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise DataError(f"{name} is truncated or no PLY file of triangles: {error}") from error
    colours = torch.full((len(points), 3), GREY)
    if {"red", "green", "blue"} <= vertex.keys():
        levels = np.stack([vertex[c] for c in ("red", "green", "blue")], 1).astype(np.float32)
        colours = torch.from_numpy(levels / np.float32(255 if vertex["red"].dtype.kind in "iu" else 1))
    inside = faces.clamp(0, max(len(points) - 1, 0))  # Mesh names a face that is outside
    return Mesh(torch.from_numpy(points), faces, colours[inside].mean(1))


def _header(raw: bytes) -> tuple[str, list[_Element], int]:
    """Byte order ("" for text), elements, and where the data begins."""
    end = re.search(rb"(?:^|\n)end_header\r?\n", raw[: 1 << 16])
    if not raw.startswith(b"ply") or end is None:
        raise ValueError("it has no PLY header")
    order: str | None = None
    elements: list[_Element] = []
    for line in raw[: end.start()].decode("ascii", "replace").splitlines():
        match line.split():
            case ["format", kind, *_]:
                order = _FORMATS[kind]
            case ["element", name, rows]:
                elements.append(_Element(name, _count(rows), []))
            case ["property", "list", count, kind, name]:
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[count]))
            case ["property", kind, name]:
                elements[-1].properties.append(_Property(name, _TYPES[kind]))
    if order is None:
        raise ValueError("its header names no format")
    return order, elements, end.end()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"its header counts {text} rows")
    return int(text)


def _binary(raw: bytes, start: int, elements: list[_Element], order: str) -> dict[str, dict[str, Array]]:
    held = {}
    for element in elements:
        fields: list[Any] = []
        sizes: dict[str, int] = {}
        for one in element.properties:
            if one.length and element.rows:
                # all lists of a file of triangles have the first one's length; that they do is checked below
                offset = start + np.dtype(fields).itemsize
                sizes[one.name] = int(np.frombuffer(raw, order + one.length, 1, offset)[0])
                fields.append((f"count {one.name}", order + one.length))
                fields.append((one.name, order + one.type, (sizes[one.name],)))
            else:
                fields.append((one.name, order + one.type))
        table = np.frombuffer(raw, np.dtype(fields), element.rows, start)
        start += table.nbytes
        for name, size in sizes.items():
            _check_lengths(table[f"count {name}"], size, element.name)
        held[element.name] = {one.name: table[one.name] for one in element.properties}
    return held


def _ascii(text: bytes, elements: list[_Element]) -> dict[str, dict[str, Array]]:
    held = {}
    lines = [line for line in text.split(b"\n") if line.strip()]
    for element in elements:
        rows, lines = lines[: element.rows], lines[element.rows :]
        table = np.array([row.split() for row in rows], dtype=np.float64).reshape(element.rows, -1)
        held[element.name], column = {}, 0
        for one in element.properties:
            width = 1
            if one.length and element.rows:
                width = int(table[0, column])
                _check_lengths(table[:, column], width, element.name)
                column += 1
            values = _as_type(table[:, column : column + width], one)
            held[element.name][one.name] = values if one.length else values[:, 0]
            column += width
    return held


def _as_type(numbers: Array, one: _Property) -> Array:
    """Numbers read from text in the type of their property."""
    kind = np.dtype(one.type)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        if not ((numbers >= bounds.min) & (numbers <= bounds.max) & (numbers == np.floor(numbers))).all():
            raise ValueError(f"{one.name} holds a number that is not whole, or out of range")
    with np.errstate(over="ignore"):
        return numbers.astype(kind)


def _check_lengths(counts: Array, size: int, element: str) -> None:
    if (counts != size).any():
        raise ValueError(f"its {element}s have lists of several lengths")
