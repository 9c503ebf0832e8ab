"""Keypoints in COCO's format."""

from __future__ import annotations

import json
import pathlib

import torch
from robustvision_core.errors import DataError

from diffpnp_pose.cli.reading.annotation import Annotation


def read_coco(path: pathlib.Path) -> list[Annotation]:
    """The annotations that have keypoints.

    Raises:
        DataError: The file is missing, or not of this form.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: image["file_name"] for image in held["images"]}
        return [
            Annotation(names[one["image_id"]], torch.tensor(one["keypoints"], dtype=torch.float64).view(-1, 3))
            for one in held["annotations"]
            if one.get("keypoints")
        ]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is not a file of COCO keypoints: {error!r}") from error
