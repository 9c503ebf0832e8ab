"""Boxes of a detector, by image."""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import torch
from robustvision_core.data import PoseSet
from robustvision_core.errors import DataError
from torch import Tensor

from diffpnp_pose.cli.recipes import TrainConfig

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, pixels."""


class Boxes:
    """One box an image; of several the one of the highest score.

    Args:
        held: Boxes by the image's path, its name, its name without ending, or `SCENE/IMAGE` with six digits each.
        source: Where they come from, for messages.
    """

    def __init__(self, held: Mapping[str, Box], source: str) -> None:
        self._held, self.source = dict(held), source

    @classmethod
    def read(cls, path: str) -> Boxes:
        """Boxes of a CSV file (file, left, top, right, bottom, and if wanted score), or of BOP's JSON of detections
        (scene_id, image_id, bbox as x, y, width, height, and if wanted score).

        Raises:
            DataError: The file is missing, or of another form.
        """
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8-sig")
            rows = _of_json(json.loads(text)) if path.lower().endswith(".json") else _of_csv(text)
            best: dict[str, tuple[float, Box]] = {}
            for name, box, score in rows:
                if not (box[2] > box[0] and box[3] > box[1]):
                    raise ValueError(f"the box of {name} is {box}: right must be beyond left, and bottom below top")
                if name not in best or score > best[name][0]:
                    best[name] = score, box
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read as boxes: {error!r}") from error
        return cls({name: box for name, (_, box) in best.items()}, path)

    def of(self, name: str) -> Box:
        """The box of an image.

        Raises:
            DataError: There is none.
        """
        path = pathlib.PurePath(name)
        scene = path.parent.parent.name if path.parent.name in ("rgb", "gray") else path.parent.name
        for key in (str(name), path.name, path.stem, f"{scene}/{path.stem}"):
            if key in self._held:
                return self._held[key]
        raise DataError(f"{self.source} has no box of {name}")

    def of_set(self, poses: PoseSet) -> Tensor:
        """(N, 4) of a set in BOP's form, by scene and image."""
        ids = poses.ids.tolist()
        return torch.tensor([self.of(f"{one // 10**9:06d}/{one % 10**9 // 1000:06d}") for one in ids])


def detected(config: TrainConfig, poses: PoseSet, split: str) -> Tensor | None:
    """(N, 4) boxes of the configuration's detector for the test set; None where the set's own are to be taken."""
    if split != "test" or not config.crop.boxes:
        return None
    return Boxes.read(config.crop.boxes).of_set(poses).to(poses.boxes)


def _of_json(held: Any) -> list[tuple[str, Box, float]]:
    rows = []
    for one in held:
        x, y, wide, high = (float(value) for value in one["bbox"])
        name = f"{int(one['scene_id']):06d}/{int(one['image_id']):06d}"
        rows.append((name, (x, y, x + wide, y + high), float(one.get("score", 1))))
    return rows


def _of_csv(text: str) -> list[tuple[str, Box, float]]:
    rows = []
    for row in csv.DictReader(text.splitlines(), skipinitialspace=True):
        left, top, right, bottom = (float(row[side]) for side in ("left", "top", "right", "bottom"))
        rows.append((row["file"].strip(), (left, top, right, bottom), float(row.get("score") or 1)))
    return rows
