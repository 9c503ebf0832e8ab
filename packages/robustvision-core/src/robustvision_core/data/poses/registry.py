"""Pose sets by name."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from robustvision_core.data.poses.pose_set import PoseSet
from robustvision_core.data.registry import Source, described, look_up, register

_SOURCES: dict[str, Source] = {}

register_poses = functools.partial(register, table=_SOURCES)
"""As `robustvision_core.data.register`, for `load(query, **options) -> PoseSet`."""


def pose_names() -> dict[str, str]:
    """Every pose set and what it is, in one line each; sets that need a path are written `name:PATH`."""
    return described(_sources())


def load_poses(
    name: str,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> PoseSet:
    """Load a pose set.

    Args:
        name: One of `pose_names`.
        split: `train`, `val` or `test`, where the set has it.
        root: The folder of all data sets, as for `robustvision_core.data.load`.
        options: What the source takes besides, as `drone` and `size` of drones.

    Raises:
        UserError: No such set, split or option.
        DataError: Files are missing, truncated or hold what they must not; the message names the file.
    """
    return look_up(_sources(), "pose set", name, split, root, False, options)


def _sources() -> dict[str, Source]:
    importlib.import_module("robustvision_core.data.sources")  # here, for its modules import this one
    return _SOURCES
