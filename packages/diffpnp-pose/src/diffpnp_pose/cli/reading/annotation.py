"""What a file says of one image."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

FEWEST = 4  # labelled keypoints that a pose needs


def _none() -> Tensor:
    return torch.zeros(0, 3, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Annotation:
    """One object in one image; pixels are counted from the centre of the first one.

    Attributes:
        file: The image.
        keypoints: (P, 3) float64 pixels and whether they are labelled (> 0).
        pose: Rotation (3, 3) and translation (3,) in metres, object to camera; None where keypoints say it.
        K: (3, 3) float64 camera matrix; None where it is that of all images.
        box: (4,) float64 left, top, right and bottom; None takes what the keypoints span.
        split: train, val or test; empty where the file does not say.
    """

    file: str
    keypoints: Tensor = field(default_factory=_none)
    pose: tuple[Tensor, Tensor] | None = None
    K: Tensor | None = None
    box: Tensor | None = None
    split: str = ""

    @property
    def usable(self) -> bool:
        """Whether it has a pose, or keypoints enough for one."""
        return self.pose is not None or int((self.keypoints[:, 2] > 0).sum()) >= FEWEST
