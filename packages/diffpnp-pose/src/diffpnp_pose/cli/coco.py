"""Images with keypoints in COCO's format, of an object whose keypoints are known in space."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from typing import Any

import torch
from robustvision_core.data import PoseObject, PoseSet
from robustvision_core.data.reading.decode import decode
from robustvision_core.errors import DataError
from torch import Tensor

from diffpnp_pose.cli.camera import CameraFile, corner_based, read_camera, undistorted
from diffpnp_pose.cli.crops.crop_set import CropSet, cut, opaque
from diffpnp_pose.cli.crops.whole import resize
from diffpnp_pose.cli.mesh.objects import diameter, read_points
from diffpnp_pose.cli.recipes import TrainConfig
from diffpnp_pose.distortion import undistort_points
from diffpnp_pose.pnp import solve_pnp

_FEWEST = 4  # labelled keypoints that a pose needs


def load_coco(config: TrainConfig, size: tuple[int, int], shares: tuple[float, float]) -> PoseSet:
    """A part of the annotations of a file, whole images or crops of one size.

    Poses are those of the labelled keypoints (visibility 1 and 2); annotations with fewer than four are left out.
    Images lie beside the file, or in a folder `images` there. Keypoints are counted as COCO does, the centre of the
    first pixel being (0, 0) as in the camera file.

    Args:
        config: Names the file, the table of keypoints and the camera.
        size: Width and height.
        shares: Which part of the annotations, in their order.

    Raises:
        DataError: A file is missing, damaged or of another form, or no annotation can be used.
    """
    path = pathlib.Path(config.data.removeprefix("coco:")).expanduser()
    points, camera = read_points(config.points), read_camera(config.camera)
    thing = PoseObject(path.stem, points, diameter(points))
    usable = [one for one in _annotations(path) if (one["keypoints"][:, 2] > 0).sum() >= _FEWEST]
    start, stop = (round(share * len(usable)) for share in shares)
    items = [_item(path, one, thing, camera) for one in usable[start:stop]]
    if not items:
        raise DataError(f"{path}: none of {len(usable)} annotations with {_FEWEST} keypoints is in this part of it")
    margin = config.crop.margin
    parts = [cut(item, size, margin) if config.crop.on else resize(item, size) for item in items]
    training = shares[0] == 0
    joined = _joined(parts)
    return opaque(joined) if isinstance(joined, CropSet) and not training else joined


def _annotations(path: pathlib.Path) -> list[dict[str, Any]]:
    """File name and keypoints (P, 3) of each annotation that has any."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in held["images"]}
        return [
            {
                "file": names[one["image_id"]],
                "keypoints": torch.tensor(one["keypoints"], dtype=torch.float64).view(-1, 3),
            }
            for one in held["annotations"]
            if one.get("keypoints")
        ]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is not a file of COCO keypoints: {error!r}") from error


def _item(path: pathlib.Path, one: dict[str, Any], thing: PoseObject, camera: CameraFile) -> PoseSet:
    """One annotation as a pose set."""
    labels: Tensor = one["keypoints"]
    if len(labels) != len(thing.keypoints):
        raise DataError(
            f"{path}: {one['file']} has {len(labels)} keypoints, the table of points {len(thing.keypoints)}"
        )
    file = next((place for place in (path.parent, path.parent / "images") if (place / one["file"]).is_file()), None)
    if file is None:
        raise DataError(f"{path}: there is no image {one['file']} in {path.parent} or its folder images")
    photo = decode(file / one["file"], one["file"])
    own = camera.at((photo.shape[2], photo.shape[1]), one["file"])
    seen = undistort_points(labels[:, :2], own.K, own.distortion) if own.bends else labels[:, :2]
    found = solve_pnp(seen, thing.keypoints.double(), own.K, mask=labels[:, 2] > 0, backward="none")
    if not bool(found.valid):
        raise DataError(f"{path}: the keypoints of {one['file']} have no pose with this table and camera")
    R, t, K = found.R.float()[None], found.t.float()[None], corner_based(own.K).float()
    return PoseSet(undistorted(photo, own)[None], R, t, K, (thing,), name=path.stem)


def _joined(parts: list[Any]) -> Any:
    """Sets of one image each as one set."""
    names = ["images", "R", "t", "K", "keypoints_2d", "visible", "boxes"]
    names += ["source_K"] if isinstance(parts[0], CropSet) else []
    fields = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    order = torch.arange(len(parts))
    return replace(parts[0], **fields, object_id=torch.zeros_like(order), image_index=order, ids=order)
