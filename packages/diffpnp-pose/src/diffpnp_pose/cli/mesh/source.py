"""Crops drawn from a mesh, and the real ones among and beside them."""

from __future__ import annotations

import functools
import hashlib
import pathlib
import sys
from dataclasses import replace

import torch
from robustvision_core import data
from robustvision_core.data import PoseObject, PoseSet
from robustvision_core.data.offline.cached import cached
from robustvision_core.data.registry.query import data_root
from robustvision_core.errors import DataError
from robustvision_core.run.runtime import derive_seed
from tqdm import tqdm

from diffpnp_pose.cli.crops import scene
from diffpnp_pose.cli.crops.boxes import detected
from diffpnp_pose.cli.crops.crop_set import CropSet, cut, opaque
from diffpnp_pose.cli.mesh.objects import read_object
from diffpnp_pose.cli.mesh.views import draw_images, draw_views
from diffpnp_pose.cli.recipes import TrainConfig

_STREAMS = {"train": 0, "val": 1, "test": 2}
_COUNTS = {"train": 4096, "val": 128, "test": 128}
_REAL = {"train": (0.0, 0.6), "test": (0.6, 1.0)}  # of sets with one split, where real images are trained on too
_FORMAT = 1  # of the cached files; to be raised with every change of what is drawn
_CAMERA = ((554.0, 0.0, 320.0), (0.0, 554.0, 240.0), (0.0, 0.0, 1.0))  # 640x480 pixels over 60 degrees
_CHUNK = 64


def load_mesh(config: TrainConfig, split: str, size: tuple[int, int]) -> CropSet:
    """The crops of a split: of train with coverage as fourth channel, of val and test before backgrounds.

    Raises:
        DataError: The mesh, photos or real images are missing or damaged.
    """
    thing = object_of(config)
    if split == "test" and config.mesh.test:
        return opaque(_real(config, config.mesh.test, split, thing, size))
    drawn = _drawn(config, split, thing, size)
    if split != "train":
        return in_scene(config, drawn, split)
    return _mixed(drawn, _real(config, config.mesh.real, split, thing, size), config) if config.mesh.real else drawn


def object_of(config: TrainConfig) -> PoseObject:
    """The object in the file that `config` names."""
    path = config.data.removeprefix("mesh:")
    file = pathlib.Path(path).expanduser()
    stamp = file.stat().st_mtime_ns if file.is_file() else 0
    return _object(path, config.mesh.keypoints, config.mesh.unit, config.points, stamp)


@functools.lru_cache(maxsize=4)
def _object(path: str, keypoints: int, unit: float, points: str, stamp: int) -> PoseObject:
    """The object, read once for all splits; `stamp` tells a file that was written anew."""
    return read_object(path, keypoints, unit, points)


def _drawn(config: TrainConfig, split: str, thing: PoseObject, size: tuple[int, int]) -> CropSet:
    assert thing.mesh is not None
    count = getattr(config, f"{split}_size") or _COUNTS[split]
    keys = (config.seed, _STREAMS[split])
    views = draw_views(config.mesh, thing, count, size, config.crop.margin, keys)
    ranges = (*config.mesh.distance, *config.mesh.elevation, config.mesh.roll, config.crop.margin, *size, count, *keys)
    mesh = hashlib.sha256(
        b"".join(part.numpy().tobytes() for part in (thing.mesh.vertices, thing.mesh.faces, thing.mesh.colours))
    ).hexdigest()
    shapes = {"images": (count, 4, size[1], size[0])}

    def make() -> dict[str, torch.Tensor]:
        with tqdm(total=count, desc=f"drawing {split}", disable=not (config.progress and sys.stderr.isatty())) as bar:
            return {"images": draw_images(thing.mesh, views, size, keys, bar.update)}  # type: ignore[arg-type]

    held = cached(data_root(config.data_root or None) / "cache", ("mesh", _FORMAT, mesh, *ranges), shapes, make)
    if not bool(held["images"][:, 3].any()):
        raise DataError(f"{thing.name} is {thing.diameter:.3g} m across, too small or near to draw: see --mesh.unit")
    source = torch.tensor(_CAMERA).expand(count, 3, 3)
    return CropSet(
        images=held["images"],
        R=views.R,
        t=views.t,
        K=views.K,
        objects=(thing,),
        boxes=views.boxes,
        name=f"{thing.name}/{split}",
        source_K=source,
    )


def in_scene(config: TrainConfig, drawn: CropSet, split: str) -> CropSet:
    """Crops before backgrounds, covered and lit as in training, without warps; the same in every run of a seed."""
    size = (drawn.images.shape[-1], drawn.images.shape[-2])
    bank = scene.backgrounds(config.mesh.background, size, config.seed, 1 + _STREAMS[split])
    draw = torch.Generator().manual_seed(derive_seed(config.seed, "scene", _STREAMS[split]))
    parts = []
    for part in drawn.images.split(_CHUNK):
        scenes = scene.in_scene(part.float() / 255, bank, config.crop, draw)
        parts.append((scenes * 255).round().to(torch.uint8))
    return replace(drawn, images=torch.cat(parts))


def _real(config: TrainConfig, name: str, split: str, thing: PoseObject, size: tuple[int, int]) -> CropSet:
    """Crops of a real set, with the keypoints of the mesh; diameter and surface for the errors are the set's own."""
    root, only = config.data_root or None, split if name.startswith("bop:") else "test"
    whole = data.load_poses(name, only, root, config.download, objects=(config.object,))
    if name == config.mesh.real and not name.startswith("bop:"):
        start, stop = (round(share * len(whole)) for share in _REAL[split])
        whole = whole.take(range(start, stop))
    return cut(_with_keypoints(whole, thing), size, config.crop.margin, detected(config, whole, split))


def _with_keypoints(poses: PoseSet, thing: PoseObject) -> PoseSet:
    own = tuple(replace(one, keypoints=thing.keypoints) for one in poses.objects)
    return replace(poses, objects=own, keypoints_2d=None, visible=None)


def _mixed(drawn: CropSet, real: CropSet, config: TrainConfig) -> CropSet:
    """Both sets, the second as often as makes its share of the items."""
    wanted = round(len(drawn) * config.mesh.real_share / (1 - config.mesh.real_share))
    again = torch.arange(wanted) % len(real)
    tensors = {
        name: torch.cat([getattr(drawn, name), getattr(real, name)[again]])
        for name in ("R", "t", "K", "keypoints_2d", "visible", "boxes", "source_K")
    }
    shown = torch.cat([drawn.image_index, len(drawn.images) + real.image_index[again]])
    images = torch.cat([drawn.images, real.images])
    return CropSet(images=images, objects=drawn.objects, image_index=shown, name=drawn.name, **tensors)
