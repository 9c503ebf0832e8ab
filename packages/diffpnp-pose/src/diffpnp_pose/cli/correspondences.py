"""Files of correspondences: image points and object points of one or more items.

JSON: one item, or a list of them under `items`, each with

    {"id": "a", "points_2d": [[u, v], ...], "points_3d": [[x, y, z], ...], "K": [[...], [...], [...]], "weights": [...]}

`id` and `weights` may be left out; `points_3d`, `K` and `weights` may stand beside `items`, for all of them.

CSV, with commas, semicolons or tabs: a line of names, then a line a point; columns `u v x y z`, and if wanted `weight`
and `id`. Lines with one id are one item. The camera comes from elsewhere. Any other field or column is an error.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from robustvision_core.data.sources.listed import separator
from robustvision_core.errors import DataError
from torch import Tensor

MIN_POINTS = 4
"""Fewer determine no single pose."""


@dataclass(frozen=True)
class Correspondences:
    """B items of up to n points, float64; shorter items are filled with zeros that `mask` leaves out.

    Attributes:
        ids: B names.
        points_2d: (B, n, 2) pixels.
        points_3d: (B, n, 3), in any unit.
        K: (B, 3, 3) pixels.
        weights: (B, n).
        mask: (B, n) bool.
    """

    ids: tuple[str, ...]
    points_2d: Tensor
    points_3d: Tensor
    K: Tensor
    weights: Tensor
    mask: Tensor


def read(path: str, camera: tuple[float, float, float, float] | None = None) -> Correspondences:
    """Read a JSON or CSV file.

    Args:
        path: The file.
        camera: fx, fy, cx and cy in pixels, for items without a K of their own.

    Raises:
        DataError: The file is missing or is not of this form; the message names file, item and field.
    """
    file = pathlib.Path(path)
    if file.suffix.lower() not in (".json", ".csv"):
        raise DataError(f"{path}: expected a file that ends in .json or .csv")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    items = _from_csv(text, path) if file.suffix.lower() == ".csv" else _from_json(text, path)
    if not items:
        raise DataError(f"{path} holds no item")
    default = None if camera is None else [[camera[0], 0, camera[2]], [0, camera[1], camera[3]], [0, 0, 1]]
    return _batch([_checked(item, number, default, path) for number, item in enumerate(items)])


def _from_json(text: str, path: str) -> list[dict[str, Any]]:
    try:
        held = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    common: dict[str, Any] = dict(held) if isinstance(held, dict) and "items" in held else {}
    items = common.pop("items") if common else [held] if isinstance(held, dict) else held
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(
            f"{path}: expected an item, or a list of items under 'items', each with points_2d and points_3d"
        )
    _refuse_unknown(common, ("K", "items", "points_3d", "weights"), "field", f"{path}, beside items")
    return [common | item for item in items]


def _from_csv(text: str, path: str) -> list[dict[str, Any]]:
    rows = csv.DictReader(text.splitlines(), delimiter=separator(io.StringIO(text)), skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or []]
    if missing := [name for name in "uvxyz" if name not in names]:
        raise DataError(f"{path}: no column {', '.join(missing)}: the first line must name u, v, x, y and z")
    _refuse_unknown(names, ("id", "u", "v", "weight", "x", "y", "z"), "column", path)
    rows.fieldnames = names
    items: dict[str, dict[str, Any]] = {}
    for row in rows:
        if None in row:
            raise DataError(
                f"{path}, line {rows.line_num}: more values than the {len(names)} columns of the first line"
            )
        name = (row.get("id") or "0").strip()
        item = items.setdefault(name, {"id": name, "points_2d": [], "points_3d": [], "weights": []})
        try:
            u, v, x, y, z, weight = (float(row.get(key) or "nan") for key in ("u", "v", "x", "y", "z", "weight"))
        except ValueError as error:
            raise DataError(f"{path}, line {rows.line_num}: {error}") from error
        item["points_2d"].append([u, v])
        item["points_3d"].append([x, y, z])
        item["weights"].append(weight if "weight" in names else 1.0)
    return list(items.values())


def _checked(item: dict[str, Any], number: int, camera: Any, path: str) -> dict[str, Any]:
    """The item with tensors for lists."""
    name = str(item.get("id", number))
    where = f"{path}, item {name}"
    _refuse_unknown(item, ("K", "id", "points_2d", "points_3d", "weights"), "field", where)
    x = _numbers(item.get("points_2d"), "points_2d", where)
    z = _numbers(item.get("points_3d"), "points_3d", where)
    if x.dim() != 2 or x.shape[1] != 2 or z.dim() != 2 or z.shape[1] != 3 or len(x) != len(z):
        raise DataError(
            f"{where}: points_2d is {tuple(x.shape)} and points_3d {tuple(z.shape)}: expected (n, 2) and (n, 3)"
        )
    weights = item.get("weights")
    c = torch.ones(len(x), dtype=x.dtype) if weights is None else _numbers(weights, "weights", where)
    if c.shape != x.shape[:1] or bool((c < 0).any()):
        raise DataError(f"{where}: weights {tuple(c.shape)} must be {len(x)} numbers of 0 or more")
    if item.get("K", camera) is None:
        raise DataError(f"{where}: no camera: give K in the file, or --camera FX FY CX CY")
    K = _numbers(item.get("K", camera), "K", where)
    if K.shape != (3, 3) or K[2].tolist() != [0, 0, 1] or not K[0, 0] * K[1, 1] - K[0, 1] * K[1, 0]:
        raise DataError(f"{where}: K must be a 3x3 camera matrix with a last row of 0 0 1, got {K.tolist()}")
    return {"id": name, "x": x, "z": z, "c": c, "K": K}


def _refuse_unknown(names: Iterable[str], known: Sequence[str], kind: str, where: str) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise DataError(f"{where}: unknown {kind} {', '.join(unknown)}: known are {', '.join(known)}")


def _numbers(value: Any, field: str, where: str) -> Tensor:
    if value is None:
        raise DataError(f"{where}: no {field}")
    try:
        numbers = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: {field} is no table of numbers: {error}") from error
    if not all(math.isfinite(number) for number in numbers.flatten().tolist()):
        raise DataError(f"{where}: {field} holds a value that is missing or not finite")
    return numbers


def _batch(items: list[dict[str, Any]]) -> Correspondences:
    def pad(name: str) -> Tensor:
        rows = torch.nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True)
        short = max(0, MIN_POINTS - rows.shape[1])  # fewer points are no shape for the solver, but an invalid item
        return torch.nn.functional.pad(rows, (0, 0) * (rows.dim() - 2) + (0, short))

    counts = torch.tensor([len(item["x"]) for item in items])
    x = pad("x")
    return Correspondences(
        ids=tuple(item["id"] for item in items),
        points_2d=x,
        points_3d=pad("z"),
        K=torch.stack([item["K"] for item in items]),
        weights=pad("c"),
        mask=torch.arange(x.shape[1]) < counts[:, None],
    )
