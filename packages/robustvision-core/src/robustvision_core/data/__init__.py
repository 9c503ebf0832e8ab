"""Labelled image sets: loading by name, splitting, batching on the device, augmenting.

from robustvision_core.data import DeviceBatches, load

train = load("digits")
for images, labels, index in DeviceBatches(train, batch_size=64, shuffle=True).epoch(0): ...
"""

from robustvision_core.data.augment import affine_augment, random_flip, random_rotation, random_shift
from robustvision_core.data.batches import Batch, DeviceBatches, channel_stats, normalise
from robustvision_core.data.file_batches import FileBatches
from robustvision_core.data.files import ImageFiles, folder_files
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.registry import data_root, load, names, register
from robustvision_core.data.splits import first, split, subset

__all__ = [
    "Batch",
    "DeviceBatches",
    "FileBatches",
    "ImageFiles",
    "ImageSet",
    "affine_augment",
    "channel_stats",
    "data_root",
    "first",
    "folder_files",
    "load",
    "names",
    "normalise",
    "random_flip",
    "random_rotation",
    "random_shift",
    "register",
    "split",
    "subset",
]
