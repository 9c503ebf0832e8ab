"""Labelled image sets and pose sets: loading by name, splitting, batching on the device, augmenting, rendering.

from robustvision_core.data import DeviceBatches, load

train = load("digits")
for images, labels, index in DeviceBatches(train, batch_size=64, shuffle=True).epoch(0): ...
"""

from robustvision_core.data.augment import affine_augment, random_flip, random_rotation, random_shift
from robustvision_core.data.batches import Batch, DeviceBatches, channel_stats, normalise
from robustvision_core.data.file_batches import FileBatches
from robustvision_core.data.files import ImageFiles, folder_files
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.offline.render import Render, overlay, render_mesh
from robustvision_core.data.pose_batches import PoseBatch, PoseBatches
from robustvision_core.data.pose_registry import load_poses, pose_names, register_poses
from robustvision_core.data.poses import Mesh, PoseObject, PoseSet
from robustvision_core.data.registry import data_root, load, names, register
from robustvision_core.data.splits import first, split, subset

__all__ = [
    "Batch",
    "DeviceBatches",
    "FileBatches",
    "ImageFiles",
    "ImageSet",
    "Mesh",
    "PoseBatch",
    "PoseBatches",
    "PoseObject",
    "PoseSet",
    "Render",
    "affine_augment",
    "channel_stats",
    "data_root",
    "first",
    "folder_files",
    "load",
    "load_poses",
    "names",
    "normalise",
    "overlay",
    "pose_names",
    "random_flip",
    "random_rotation",
    "random_shift",
    "register",
    "register_poses",
    "render_mesh",
    "split",
    "subset",
]
