"""Pose sets in the format of the BOP challenge (Hodan et al. 2018), as LM-O, T-LESS or YCB-V."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustvision_core.data.poses.pinhole import nearest_rotation
from robustvision_core.data.poses.pose_set import PoseObject, PoseSet
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sources.bop_files import BopFiles
from robustvision_core.data.sources.ply import read_ply
from robustvision_core.data.sources.pose_images import MAX_GIB, decode_within
from robustvision_core.errors import DataError

MILLIMETRE = 1e-3
LARGEST = 10**6  # files are named by six digits
LMO_NAMES = {1: "ape", 5: "can", 6: "cat", 8: "driller", 9: "duck", 10: "eggbox", 11: "glue", 12: "holepuncher"}


@dataclass(frozen=True)
class _Item:
    """One object in one image, as the files have it, in millimetres."""

    scene: int
    image: int
    position: int  # in the image's list
    obj: int
    R: list[float]
    t: list[float]
    K: list[float]
    box: list[float] | None


def load_bop(
    query: Query,
    objects: Sequence[int] = (),
    min_visib: float = 0.1,
    folder: str = "",
    models: str = "",
    max_gib: float = MAX_GIB,
) -> PoseSet:
    """The scenes below `PATH/<folder>/`; see `read_bop`.

    Args:
        query: Its `path` is the data set's folder, a zip of it, or a folder of its zips.
        objects: Numbers of the objects to keep; empty keeps all.
        min_visib: Least share of an object that must be seen, as the annotations say; needs `scene_gt_info.json`.
        folder: The folder of the scenes, as `train_pbr`; empty takes the split's name.
        models: `models`, `models_eval` or another; empty takes the first of `models_eval` and `models`.
        max_gib: Largest size of the images in memory, in GiB.
    """
    files = BopFiles.at(pathlib.Path(query.path).expanduser())
    return read_bop(files, query.title, folder or query.split, objects, min_visib, models, max_gib)


def load_lmo(query: Query, objects: Sequence[int] = (), min_visib: float = 0.1, models: str = "") -> PoseSet:
    """LM-O from a folder `lmo` or `lmo*.zip` below the data root or its `pose`; see `load_bop`."""
    for place in (query.root / "pose", query.root / "lmo", query.root):
        if (place / "lmo" / "test").is_dir():
            files = BopFiles.at(place / "lmo")
        elif archives := sorted(place.glob("lmo*.zip")):
            files = BopFiles(archives, str(place / "lmo*.zip"))
        else:
            continue
        return read_bop(files, query.title, query.split, objects, min_visib, models, names=LMO_NAMES)
    raise query.missing("lmo/test or lmo*.zip", query.root / "pose")


def read_bop(
    files: BopFiles,
    title: str,
    folder: str,
    objects: Sequence[int] = (),
    min_visib: float = 0.0,
    models: str = "",
    max_gib: float = MAX_GIB,
    names: dict[int, str] | None = None,
) -> PoseSet:
    """All annotated objects of the scenes in one folder.

    Millimetres become metres, and matrices the nearest rotations (LM-O's are scaled by up to 0.5 %). Intrinsics are
    taken as they are: the boxes that BOP's toolkit drew for LM-O agree with pixel centres at (column + 1/2, row + 1/2)
    to 0.01 pixel on average over 1,422 objects. A box [x, y, w, h] there ends at its last pixel's number, so that here
    it is (x, y, x + w + 1, y + h + 1).

    Keypoints are those of `kpts3d.json` (`{data set: {object: [[x, y, z], ...]}}`) where the set has such a file,
    else the centre and the corners of the model's box. An item's id is
    `scene * 10**9 + image * 1000 + place in its list`.

    Args:
        files: The data set.
        title: Its name in messages.
        folder: Of the scenes.
        objects: As in `load_bop`.
        min_visib: As in `load_bop`.
        models: As in `load_bop`.
        max_gib: As in `load_bop`.
        names: Of objects by number; else they are called as their model's file.

    Raises:
        DataError: A file is missing, truncated or holds something else, or nothing is left.
    """
    items = [item for scene in _scenes(files, folder) for item in _read_scene(files, scene, objects, min_visib)]
    if not items:
        raise DataError(
            f"{files.about}: no object of {folder} is left with objects {list(objects)}, visible {min_visib:g}"
        )
    numbers = sorted({item.obj for item in items})
    kinds = _objects(files, numbers, models, names or {})
    shown = sorted({(item.scene, item.image) for item in items})
    paths = [_image(files, folder, *key) for key in shown]
    pixels = decode_within(files.sources(paths), [f"{files.about}: {p}" for p in paths], files.about, max_gib)
    place = {key: row for row, key in enumerate(shown)}
    boxes = [item.box for item in items if item.box is not None]
    return PoseSet(
        images=pixels,
        R=nearest_rotation(_numbers([item.R for item in items], 9).view(-1, 3, 3), title),
        t=(_numbers([item.t for item in items], 3) * MILLIMETRE).float(),
        K=_numbers([item.K for item in items], 9).view(-1, 3, 3).float(),
        objects=kinds,
        object_id=torch.tensor([numbers.index(item.obj) for item in items]),
        image_index=torch.tensor([place[item.scene, item.image] for item in items]),
        boxes=_corners(boxes) if len(boxes) == len(items) else None,  # type: ignore[arg-type]  # filled from the meshes
        ids=torch.tensor([item.scene * 10**9 + item.image * 1000 + item.position for item in items]),
        name=title,
    )


def _scenes(files: BopFiles, folder: str) -> list[str]:
    found = [name.removesuffix("/scene_gt.json") for name in files.names if name.endswith("/scene_gt.json")]
    scenes = [scene for scene in found if scene.split("/")[0] == folder]
    if not scenes:
        others = sorted({scene.split("/")[0] for scene in found})
        raise DataError(
            f"{files.about} has no {folder}/<scene>/scene_gt.json: found {', '.join(others) or 'no scenes'}"
        )
    return scenes


def _read_scene(files: BopFiles, scene: str, objects: Sequence[int], min_visib: float) -> list[_Item]:
    truth, cameras, info = (files.json(f"{scene}/scene_{part}.json") for part in ("gt", "camera", "gt_info"))
    items = []
    try:
        for image in sorted(truth, key=int):
            for position, one in enumerate(truth[image]):
                seen = info[image][position] if info else {}
                obj = _whole(one["obj_id"])
                if (objects and obj not in objects) or seen.get("visib_fract", 1.0) < min_visib:
                    continue
                K = cameras[image]["cam_K"]
                number, shown = _whole(int(scene.split("/")[-1])), _whole(int(image))
                pose = one["cam_R_m2c"], one["cam_t_m2c"]
                items.append(_Item(number, shown, position, obj, *pose, K, seen.get("bbox_obj")))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{files.about}: {scene} lacks an annotation or has another form: {error!r}") from error
    return items


def _whole(number: object) -> int:
    """A number of a scene, an image or an object."""
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < LARGEST:
        raise ValueError(f"{number!r} is no number of a scene, an image or an object")
    return number


def _objects(files: BopFiles, numbers: list[int], models: str, names: dict[int, str]) -> tuple[PoseObject, ...]:
    folders = [models] if models else ["models_eval", "models"]
    folder = next((f for f in folders if f"{f}/models_info.json" in files), "")
    if not folder:
        raise DataError(f"{files.about} has no {' or '.join(f'{f}/models_info.json' for f in folders)}")
    info = files.json(f"{folder}/models_info.json")
    paths = {number: f"{folder}/obj_{number:06d}.ply" for number in numbers}
    if absent := [path for path in paths.values() if path not in files]:
        raise DataError(f"{files.about} has no {absent[0]}")
    raw = files.read(paths.values())
    given = _given_keypoints(files, numbers)
    kinds = []
    for number, path in paths.items():
        try:
            about = info[str(number)]
            points = given[str(number)] if str(number) in given else _box_points(about)
            diameter = float(about["diameter"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{files.about}: {folder}/models_info.json lacks of object {number}: {error!r}") from error
        mesh = read_ply(raw[path], f"{files.about}: {path}", MILLIMETRE)
        name = names.get(number, f"obj_{number:06d}")
        kinds.append(PoseObject(name, (_numbers(points, 3) * MILLIMETRE).float(), diameter * MILLIMETRE, mesh))
    return tuple(kinds)


def _given_keypoints(files: BopFiles, numbers: list[int]) -> dict[str, list[list[float]]]:
    """Those of `kpts3d.json`, which may hold other data sets besides; none where it lacks an object."""
    held = files.json("kpts3d.json").get(files.name, {})
    return held if isinstance(held, dict) and all(str(number) in held for number in numbers) else {}


def _box_points(about: dict[str, float]) -> list[list[float]]:
    low = [about[f"min_{axis}"] for axis in "xyz"]
    size = [about[f"size_{axis}"] for axis in "xyz"]
    shares = [(0.5, 0.5, 0.5), *((a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1))]
    return [[at + share * side for at, share, side in zip(low, which, size, strict=True)] for which in shares]


def _image(files: BopFiles, folder: str, scene: int, image: int) -> str:
    for kind in ("rgb", "gray"):
        for suffix in ("jpg", "png", "tif"):
            name = f"{folder}/{scene:06d}/{kind}/{image:06d}.{suffix}"
            if name in files:
                return name
    raise DataError(f"{files.about} has no {folder}/{scene:06d}/rgb/{image:06d}.png, .jpg or .tif")


def _corners(boxes: list[list[float]]) -> Tensor:
    x, y, wide, high = _numbers(boxes, 4).unbind(1)
    return torch.stack([x, y, x + wide + 1, y + high + 1], 1).float()


def _numbers(values: list[list[float]], length: int) -> Tensor:
    """(N, length) float64."""
    try:
        return torch.tensor(values, dtype=torch.float64).view(-1, length)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"a list in the annotations is not {length} numbers: {error}") from error
