"""Images with annotations of one object: its keypoints in the image, or its pose."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from robustvision_core.data import PoseObject, PoseSet
from robustvision_core.data.reading.decode import decode
from robustvision_core.errors import DataError
from torch import Tensor

from diffpnp_pose.cli.camera import CameraFile, corner_based, read_camera, straight, undistorted
from diffpnp_pose.cli.crops.crop_set import CropSet, cut, opaque
from diffpnp_pose.cli.crops.whole import resize
from diffpnp_pose.cli.mesh.objects import diameter, read_points
from diffpnp_pose.cli.reading.annotation import FEWEST, Annotation
from diffpnp_pose.cli.reading.coco import read_coco
from diffpnp_pose.cli.reading.tables import read_csv, read_parquet
from diffpnp_pose.cli.recipes import TrainConfig
from diffpnp_pose.distortion import undistort_points
from diffpnp_pose.pnp import solve_pnp

_READERS: dict[str, Callable[[pathlib.Path], list[Annotation]]] = {
    "coco": read_coco,
    "csv": read_csv,
    "parquet": read_parquet,
}


def is_annotated(data: str) -> bool:
    """Whether `--data` names a file of annotations."""
    return data.partition(":")[0] in _READERS


@dataclass(frozen=True, eq=False)
class _Source:
    """A file of annotations, the object in them, and the camera of those that name none."""

    path: pathlib.Path
    thing: PoseObject
    camera: CameraFile | None


def load_annotated(config: TrainConfig, size: tuple[int, int], split: str, shares: tuple[float, float]) -> PoseSet:
    """A part of the annotations of a file, whole images or crops of one size.

    Poses are those of the file, or of the labelled keypoints; annotations with fewer than four are left out. Images lie
    beside the file, or in a folder `images` there. Pixels are counted as COCO does, the centre of the first pixel being
    (0, 0) as in the camera file.

    Args:
        config: Names the file, the table of keypoints and the camera.
        size: Width and height.
        split: Which part, where the file has splits.
        shares: Which part of the annotations in their order, where it has none.

    Raises:
        DataError: A file is missing, damaged or of another form, or no annotation can be used.
    """
    kind, _, name = config.data.partition(":")
    path = pathlib.Path(name).expanduser()
    points = read_points(config.points)
    source = _Source(path, PoseObject(path.stem, points, diameter(points)), _camera(config))
    usable = [one for one in _READERS[kind](path) if one.usable]
    chosen = _chosen(usable, split, shares)
    if not chosen:
        raise DataError(
            f"{path}: none of {len(usable)} annotations with a pose or {FEWEST} keypoints is in its {split}"
        )
    items = [_item(source, one) for one in chosen]
    parts = [cut(item, size, config.crop.margin) if config.crop.enabled else resize(item, size) for item in items]
    joined = replace(_joined(parts), name=path.stem)
    return opaque(joined) if isinstance(joined, CropSet) and split != "train" else joined


def _camera(config: TrainConfig) -> CameraFile | None:
    return read_camera(config.camera) if config.camera else None


def _chosen(usable: list[Annotation], split: str, shares: tuple[float, float]) -> list[Annotation]:
    if any(one.split for one in usable):
        return [one for one in usable if (one.split or "train") == split]
    start, stop = (round(share * len(usable)) for share in shares)
    return usable[start:stop]


def _item(source: _Source, one: Annotation) -> PoseSet:
    """One annotation as a pose set."""
    where = f"{source.path}, {one.file}"
    folder = source.path.parent
    file = next((place for place in (folder, folder / "images") if (place / one.file).is_file()), None)
    if file is None:
        raise DataError(f"{source.path}: there is no image {one.file} in {folder} or its folder images")
    photo = decode(file / one.file, one.file)
    camera = _camera_of(source, one, where).at((photo.shape[2], photo.shape[1]), one.file)
    R, t = one.pose if one.pose is not None else _solved(source, one, camera, where)
    box = None if one.box is None else (one.box + 0.5)[None].float()
    K, image = corner_based(camera.K).float(), undistorted(photo, camera)[None]
    return PoseSet(image, R.float()[None], t.float()[None], K, (source.thing,), boxes=box, name=where)  # type: ignore[arg-type]


def _camera_of(source: _Source, one: Annotation, where: str) -> CameraFile:
    if one.K is not None:
        return straight(one.K)
    if source.camera is None:
        raise DataError(f"{where}: no camera: give --camera, or the columns fx, fy, cx and cy")
    return source.camera


def _solved(source: _Source, one: Annotation, camera: CameraFile, where: str) -> tuple[Tensor, Tensor]:
    labels, points = one.keypoints, source.thing.keypoints
    if len(labels) != len(points):
        raise DataError(f"{where} has {len(labels)} keypoints, the table of points {len(points)}")
    seen = undistort_points(labels[:, :2], camera.K, camera.distortion) if camera.bends else labels[:, :2]
    found = solve_pnp(seen, points.double(), camera.K, mask=labels[:, 2] > 0, backward="none")
    if not bool(found.valid):
        raise DataError(f"{where}: its keypoints have no pose with this table and camera")
    return found.R, found.t


def _joined(parts: list[Any]) -> Any:
    """Sets of one image each as one set."""
    names = ["images", "R", "t", "K", "keypoints_2d", "visible", "boxes"]
    names += ["source_K"] if isinstance(parts[0], CropSet) else []
    fields = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    order = torch.arange(len(parts))
    return replace(parts[0], **fields, object_id=torch.zeros_like(order), image_index=order, ids=order)
