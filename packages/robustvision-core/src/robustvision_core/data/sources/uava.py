"""UAVA: drones seen from a headset in scanned buildings (Albanis et al. 2020)."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustvision_core.config import parse_json
from robustvision_core.data.offline.drone_meshes import KEYPOINTS
from robustvision_core.data.offline.drones import camera
from robustvision_core.data.poses.pinhole import nearest_rotation, project
from robustvision_core.data.poses.pose_set import PoseObject, PoseSet
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.pose_images import MAX_GIB, decode_within
from robustvision_core.errors import DataError, unknown_name

FOLDERS = {"m2ed": "M2ED", "tello": "Tello"}
DIAMETERS = {"m2ed": 0.354, "tello": 0.219485}  # metres, as the paper's configuration has them
VIEW, TYPE = "exocentric", "colour"
DISAGREE = 3.0  # pixels between annotated and projected keypoints, in the median


@dataclass(frozen=True)
class _Row:
    """One annotated image."""

    path: pathlib.Path
    pose: list[float]
    points: list[list[float]]


def load_uava(
    query: Query,
    drone: str = "m2ed",
    frames: Sequence[int] = (0,),
    metadata: str = "",
    count: int | None = None,
    max_gib: float = MAX_GIB,
) -> PoseSet:
    """The exocentric colour images of one drone, split by building, with all nine keypoints in the image.

    Layout, below `<root>/uava`, `<root>/UAVA` or `<root>`::

        data splits/scenes_{train,val,test}.txt       the buildings, one a line
        {M2ED,Tello}/exocentric/colour/<building>/<row>_<date>_<frame>_<...>_exocentric_<...>
        *.json                                        annotations, as published with the paper's code

    The annotations are `drones -> M2ED -> <building>_<row>_<date> -> exocentric -> <frame>` with `pose` (4x4 by
    rows), `3dpoints` (nine keypoints in units of width and height) and `visibleAll`; images without annotation, or
    with `visibleAll` false, are left out.

    The poses are Blender's: the camera looks along -z and y is up, and the published code projects with
    `K = [[-f, 0, cx], [0, f, cy], [0, 0, 1]]`. Turning the camera by pi about x, `R' = D R` and `t' = D t` with
    `D = diag(1, -1, -1)`, gives the same pixels with a positive f and z in front of the camera, for
    `diag(-f, f, 1) = -diag(f, f, 1) D` and the sign cancels in the quotient.

    Args:
        query: Its `split` is `train`, `val` or `test`.
        drone: `m2ed` or `tello`.
        frames: Which of the two moments, 0 or 1; the paper takes 0.
        metadata: The annotations' file; empty takes the one JSON file beside the drones' folders.
        count: Take this many, evenly spaced; None takes all.
        max_gib: Largest size of the images in memory, in GiB.

    Raises:
        DataError: A file is missing or has another form, or the poses do not project to the annotated keypoints.
    """
    if drone not in FOLDERS:
        raise unknown_name("drone of uava", drone, FOLDERS)
    top = _top(query, FOLDERS[drone])
    rows = _rows(top, query.split, FOLDERS[drone], frames, _annotations(top, metadata, FOLDERS[drone]))
    if not rows:
        raise DataError(f"{query.title}: {top} has no annotated {VIEW} {TYPE} image of {FOLDERS[drone]} in this split")
    chosen = (
        range(len(rows)) if count is None else torch.linspace(0, len(rows) - 1, min(count, len(rows))).long().tolist()
    )
    return _assemble(query, drone, [rows[i] for i in chosen], torch.tensor(list(chosen)), max_gib)


def _assemble(query: Query, drone: str, rows: list[_Row], ids: Tensor, max_gib: float) -> PoseSet:
    paths = [row.path for row in rows]
    images = decode_within(paths, [str(path) for path in paths], query.title, max_gib)
    size = images.shape[3], images.shape[2]
    try:
        pose = torch.tensor([row.pose for row in rows], dtype=torch.float64).view(-1, 4, 4)
        points = torch.tensor([row.points for row in rows], dtype=torch.float64).view(-1, 9, 2)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{query.title}: an annotation is not 16 numbers of a pose and 9 points: {error}") from error
    turn = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)[:, None]
    R = nearest_rotation(turn * pose[:, :3, :3], query.title)
    t = (turn * pose[:, :3, 3:])[..., 0].float()
    seen = (points * torch.tensor(size)).float()
    K, corners = camera(size), torch.tensor(KEYPOINTS[drone])
    gap = float((project(corners, R, t, K) - seen).norm(dim=-1).median())
    if not gap <= DISAGREE:
        raise DataError(
            f"{query.title}: the poses project {gap:.1f} pixels from the annotated keypoints (median): these are not "
            "the annotations of this drone, or they follow another convention"
        )
    kind = PoseObject(drone, corners, DIAMETERS[drone])
    visible = torch.ones(seen.shape[:2], dtype=torch.bool)
    return PoseSet(images, R, t, K, (kind,), keypoints_2d=seen, visible=visible, ids=ids, name=query.title)


def _top(query: Query, folder: str) -> pathlib.Path:
    for place in (query.root / "uava", query.root / "UAVA", query.root):
        if (place / folder / VIEW / TYPE).is_dir():
            return place
    raise query.missing(f"{folder}/{VIEW}/{TYPE}", query.root / "uava")


def _annotations(top: pathlib.Path, metadata: str, folder: str) -> dict[str, Any]:
    """Of one drone, by building, row and date."""
    files = [pathlib.Path(metadata).expanduser()] if metadata else sorted(top.glob("*.json"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise DataError(f"uava: expected one JSON file of annotations in {top}, found {found}: name it with metadata")
    try:
        held = parse_json(files[0].read_bytes(), str(files[0]), DataError)["drones"][folder]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{files[0]} holds no annotations of {folder} under 'drones': {error!r}") from error
    if not isinstance(held, dict):
        raise DataError(f"{files[0]}: the annotations of {folder} are no table")
    return held


def _rows(top: pathlib.Path, split: str, folder: str, frames: Sequence[int], annotations: dict[str, Any]) -> list[_Row]:
    rows = []
    for building in _buildings(top, split):
        place = top / folder / VIEW / TYPE / building
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            parts = path.name.split("_")
            if len(parts) not in (6, 7) or parts[-2] != VIEW or not parts[2].isdigit() or int(parts[2]) not in frames:
                continue
            one: Any = annotations
            for key in (f"{building}_{parts[0]}_{parts[1]}", VIEW, parts[2]):
                one = one.get(key) if isinstance(one, dict) else None
            if isinstance(one, dict) and one.get("visibleAll", False):
                rows.append(_Row(path, _decoded(one, "pose", path), _decoded(one, "3dpoints", path)))
    return rows


def _buildings(top: pathlib.Path, split: str) -> list[str]:
    path = top / "data splits" / f"scenes_{split}.txt"
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}: it lists the buildings of the split") from error


def _decoded(annotation: dict[str, Any], field: str, path: pathlib.Path) -> Any:
    """A list of numbers, which the file holds as text."""
    value = annotation.get(field)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise DataError(f"uava: {field} of {path} is no list of numbers: {error}") from error
