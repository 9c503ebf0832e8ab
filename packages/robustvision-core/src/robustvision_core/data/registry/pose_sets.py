"""Pose sets by name."""

from __future__ import annotations

import os
from typing import Any

from robustvision_core.data.poses.pose_set import PoseSet
from robustvision_core.data.registry.table import Registry, Source

TRAIN_VAL_TEST = ("train", "val", "test")

POSE_SETS: Registry[PoseSet] = Registry(
    "pose set",
    "robustvision.poses",
    {
        "drones": Source(
            "rendered quadrotors with 9 keypoints, offline; "
            "options drone, size, count, seed, distance, tilt, margin, noise, cache",
            ".offline.drones:load_drones",
            TRAIN_VAL_TEST,
        ),
        "bop": Source(
            "your folder or zip in the format of the BOP challenge; "
            "options objects, min_visib, folder, models, max_gib",
            ".sources.bop:load_bop",
            TRAIN_VAL_TEST,
            takes_path=True,
        ),
        "lmo": Source(
            "LINEMOD-Occluded, 8 objects in 200 photos of 640x480 (Brachmann et al. 2014); "
            "options objects, min_visib, models",
            ".sources.bop:load_lmo",
            ("test",),
        ),
        "uava": Source(
            "rendered drones in scanned buildings, 320x240 (Albanis et al. 2020); "
            "options drone, frames, metadata, count, max_gib",
            ".sources.uava:load_uava",
            TRAIN_VAL_TEST,
        ),
    },
)

pose_names = POSE_SETS.names
register_poses = POSE_SETS.register
"""As `robustvision_core.data.register`, for `load(query, **options) -> PoseSet`."""


def load_poses(
    name: str,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    **options: Any,
) -> PoseSet:
    """Load a pose set.

    Args:
        name: One of `pose_names`.
        split: `train`, `val` or `test`, where the set has it.
        root: The folder of all data sets, as for `robustvision_core.data.load`.
        download: Fetch what is missing, where the source can.
        options: What the source takes besides, as `drone` and `size` of drones.

    Raises:
        UserError: No such set, split or option.
        DataError: Files are missing, truncated or hold what they must not; the message names the file.
    """
    return POSE_SETS.load(name, split, root, download, options)
