"""Image sets, domain pairs and pose sets: loading by name, splitting, batching on the device, augmenting, rendering.

from robustvision_core.data import DeviceBatches, load

train = load("digits")
for images, labels, index in DeviceBatches(train, batch_size=64, shuffle=True).epoch(0): ...
"""

from robustvision_core.data.augment import affine_augment, random_flip, random_rotation, random_shift, rotate
from robustvision_core.data.batches import Batch, DeviceBatches, channel_stats, normalise
from robustvision_core.data.blending import blend
from robustvision_core.data.convert import pad_to, resize, rotate_each, to_rgb
from robustvision_core.data.domain_registry import domain_names, load_domains, register_domains
from robustvision_core.data.domains import DomainPair, align_classes
from robustvision_core.data.episode_index import EpisodeDraw, EpisodeIndex
from robustvision_core.data.episodes import EpisodeBatch, EpisodeSampler
from robustvision_core.data.file_batches import FileBatches
from robustvision_core.data.files import ImageFiles, folder_files
from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.offline.backgrounds import draw_backgrounds
from robustvision_core.data.offline.render import Render, overlay, render_mesh
from robustvision_core.data.photos import Photos, read_photos
from robustvision_core.data.pose_batches import PoseBatch, PoseBatches
from robustvision_core.data.pose_registry import load_poses, pose_names, register_poses
from robustvision_core.data.poses import Mesh, PoseObject, PoseSet
from robustvision_core.data.registry import data_root, load, names, register
from robustvision_core.data.splits import first, split, subset
from robustvision_core.data.subsets import long_tail, select_classes, split_labelled

__all__ = [
    "Batch",
    "DeviceBatches",
    "DomainPair",
    "EpisodeBatch",
    "EpisodeDraw",
    "EpisodeIndex",
    "EpisodeSampler",
    "FileBatches",
    "ImageFiles",
    "ImageSet",
    "Mesh",
    "Photos",
    "PoseBatch",
    "PoseBatches",
    "PoseObject",
    "PoseSet",
    "Render",
    "affine_augment",
    "align_classes",
    "blend",
    "channel_stats",
    "data_root",
    "domain_names",
    "draw_backgrounds",
    "first",
    "folder_files",
    "load",
    "load_domains",
    "load_poses",
    "long_tail",
    "names",
    "normalise",
    "overlay",
    "pad_to",
    "pose_names",
    "random_flip",
    "random_rotation",
    "random_shift",
    "read_photos",
    "register",
    "register_domains",
    "register_poses",
    "render_mesh",
    "resize",
    "rotate",
    "rotate_each",
    "select_classes",
    "split",
    "split_labelled",
    "subset",
    "to_rgb",
]
