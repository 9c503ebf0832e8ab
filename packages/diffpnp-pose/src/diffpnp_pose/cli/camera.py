"""Camera files, which `calibrate` writes and `train`, `solve` and `predict` read."""

from __future__ import annotations

import json
import math
import pathlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from robustvision_core.errors import DataError
from torch import Tensor

from diffpnp_pose.distortion import Distortion

_ASPECT = 0.01  # how far the scales of width and height may differ


@dataclass(frozen=True, eq=False)
class CameraFile:
    """A camera.

    Attributes:
        K: camera matrix in pixels, (3, 3) float64; the centre of the first pixel is (0, 0), as in OpenCV.
        distortion: that of its lens.
        size: width and height of its images; None where unknown.
    """

    K: Tensor
    distortion: Distortion
    size: tuple[int, int] | None = None

    @property
    def bends(self) -> bool:
        """Whether the lens has a distortion."""
        return self.distortion.model == "fisheye" or bool(self.distortion.coefficients.any())

    def at(self, size: tuple[int, int], name: str) -> CameraFile:
        """The camera for images of another width and height, of the same shape.

        Raises:
            DataError: The shape is another.
        """
        if self.size is None or self.size == size:
            return self
        scale = [new / old for new, old in zip(size, self.size, strict=True)]
        if abs(scale[0] / scale[1] - 1) > _ASPECT:
            raise DataError(f"{name} has {size[0]}x{size[1]} pixels, its camera {self.size[0]}x{self.size[1]}")
        K = corner_based(self.K) * torch.tensor([*scale, 1.0], dtype=self.K.dtype)[:, None]
        return replace(self, K=centre_based(K), size=size)


def corner_based(K: Tensor) -> Tensor:
    """The matrix where the image's corner is (0, 0), as in pose sets, of one where its first pixel's centre is."""
    return K + K.new_tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def centre_based(K: Tensor) -> Tensor:
    """The inverse of `corner_based`: OpenCV's way."""
    return K - K.new_tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def straight(K: Tensor, size: tuple[int, int] | None = None) -> CameraFile:
    """The camera of a float64 matrix (3, 3) as in the camera file, without distortion."""
    return CameraFile(K, Distortion(torch.zeros(4, dtype=torch.float64)), size)


def pinhole(K: Tensor, size: tuple[int, int] | None = None) -> CameraFile:
    """The camera of a `corner_based` matrix (3, 3), without distortion."""
    return straight(centre_based(K.double()), size)


def read_camera(path: str) -> CameraFile:
    """The camera in a file that `calibrate` wrote.

    Raises:
        DataError: The file is missing, or is not of this form.
    """
    try:
        held = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a camera: {error}") from error
    try:
        K = torch.tensor(held["K"], dtype=torch.float64)
        lens: dict[str, Any] = held.get("distortion") or {"coefficients": [0.0] * 4}
        coefficients = torch.tensor(lens["coefficients"], dtype=torch.float64)
        distortion = Distortion(coefficients, lens.get("model", "opencv"))
        size = tuple(int(side) for side in held["size"]) if held.get("size") else None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"{path} holds no camera: {error}") from error
    numbers = [*K.flatten().tolist(), *coefficients.tolist()]
    if K.shape != (3, 3) or not all(math.isfinite(number) for number in numbers):
        raise DataError(f"{path} holds no camera: K must be 3x3, and all numbers finite")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError(f"{path} holds no camera: size must be width and height")
    return CameraFile(K, distortion, size)  # pyright: ignore[reportArgumentType]  # two sides, as checked


def undistorted(image: Tensor, camera: CameraFile) -> Tensor:
    """An image (3, H, W) uint8 as the same camera without distortion sees it."""
    if not camera.bends:
        return image
    import cv2

    pixels, K = image.permute(1, 2, 0).contiguous().numpy(), camera.K.numpy()
    coefficients = camera.distortion.coefficients.numpy()
    if camera.distortion.model == "fisheye":
        straight = cv2.fisheye.undistortImage(pixels, K, coefficients, None, K)
    else:
        straight = cv2.undistort(pixels, K, coefficients)
    return torch.from_numpy(straight).permute(2, 0, 1).contiguous()
