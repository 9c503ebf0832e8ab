"""The images and poses of a configuration: one object, at one size, with every keypoint in the image."""

from __future__ import annotations

import sys

import torch
from robustvision_core import data
from robustvision_core.data import PoseSet
from robustvision_core.data.offline.drones import pixels
from robustvision_core.errors import DataError
from torch import Tensor

from diffpnp_pose.cli.annotated import is_annotated, load_annotated
from diffpnp_pose.cli.crops.boxes import detected
from diffpnp_pose.cli.crops.crop_set import cut, opaque
from diffpnp_pose.cli.crops.whole import resize
from diffpnp_pose.cli.mesh.source import load_mesh
from diffpnp_pose.cli.recipes import TrainConfig

STRIDE = 4  # of the networks' heat-maps
SMALLEST = 32  # pixels, or eight cells, of an object
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's: known without the training set
_SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}  # of sets with one split; videos stay in order


def load(config: TrainConfig, split: str) -> PoseSet:
    """The items of a split whose keypoints are all visible, resized to the configuration's size.

    Raises:
        UserError: No such data, or a size that the networks do not take.
        DataError: Files are missing or damaged, nothing is left, or the object has fewer than four keypoints.
    """
    size = pixels(config.size)
    if any(side < STRIDE or side % STRIDE for side in size):
        raise DataError(f"--size {config.size}: width and height must be multiples of {STRIDE}, and positive")
    count = getattr(config, f"{split}_size")
    held = _images(config, split, count, size)
    own = len(held.objects[0].keypoints)
    if own < 4:
        raise DataError(f"{held.name}: {held.objects[0].name} has {own} keypoints, a pose needs at least 4")
    if not bool(held.visible.all()):
        held = held.take(held.visible.all(1))
    if not len(held):
        raise DataError(f"{held.name}: no item has all of its keypoints in the image")
    return held.take(_spread(len(held), count)) if 0 < count < len(held) else held


def _images(config: TrainConfig, split: str, count: int, size: tuple[int, int]) -> PoseSet:
    """Whole images, or crops; those of train with coverage as fourth channel."""
    if config.data.startswith("mesh:"):
        return load_mesh(config, split, size)
    if is_annotated(config.data):
        return load_annotated(config, size, split, _SHARES[split])
    held = _load(config, split, count, size)
    if not config.crop.enabled:
        resized = resize(held, size)
        if split == "train":
            warn_of_small(resized)
        return resized
    crops = cut(held, size, config.crop.margin, detected(config, held, split))
    return crops if split == "train" else opaque(crops)


def warn_of_small(poses: PoseSet) -> None:
    """Say so on the error stream where most objects span fewer cells of a heat-map than keypoints can be told apart."""
    extent = (poses.boxes[:, 2:] - poses.boxes[:, :2]).amax(1)
    if len(extent) and float(extent.median()) < SMALLEST:
        sys.stderr.write(
            f"{poses.name}: half of the objects are below {float(extent.median()):.0f} pixels, or "
            f"{float(extent.median()) / STRIDE:.0f} cells of a heat-map: too small to be seen well; "
            "take a larger --size, or --crop.enabled\n"
        )


def _load(config: TrainConfig, split: str, count: int, size: tuple[int, int]) -> PoseSet:
    root, download = config.data_root or None, config.download
    if config.data == "drones":
        size_of = {"size": size, "count": count or None, "distance": config.distance}
        return data.load_poses("drones", split, root, download, drone=config.drone, **size_of)
    if config.data == "uava":
        return data.load_poses("uava", split, root, download, drone=config.drone)
    if config.data == "lmo":
        whole = data.load_poses("lmo", "test", root, download, objects=(config.object,))
        start, stop = (round(share * len(whole)) for share in _SHARES[split])
        return whole.take(range(start, stop))
    options = {"objects": (config.object,)} if config.data.startswith("bop:") else {}
    return data.load_poses(config.data, split, root, download, **options)


def _spread(length: int, count: int) -> Tensor:
    """`count` places evenly over `length`."""
    return torch.linspace(0, length - 1, count).round().long()
