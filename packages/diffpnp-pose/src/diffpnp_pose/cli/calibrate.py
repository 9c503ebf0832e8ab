"""`diffpnp-pose calibrate`: a camera from photos of a chessboard, and the file that holds it."""

from __future__ import annotations

import json
import math
import pathlib
import sys
from dataclasses import dataclass
from typing import Any

import torch
from robustvision_core.errors import DataError
from robustvision_core.run.files import write_json
from torch import Tensor

from diffpnp_pose.cli.options import CalibrateConfig
from diffpnp_pose.distortion import Distortion

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FEWEST = 3  # views from which five coefficients and a camera matrix are determined


@dataclass(frozen=True, eq=False)
class CameraFile:
    """A camera.

    Attributes:
        K: camera matrix in pixels, (3, 3) float64.
        distortion: that of its lens.
    """

    K: Tensor
    distortion: Distortion


def calibrate(config: CalibrateConfig) -> None:
    """Find the board in every photo, calibrate, and write the camera."""
    import cv2
    import numpy as np

    columns, rows = config.corners
    board = np.zeros((columns * rows, 3), np.float32)
    board[:, :2] = config.square * np.mgrid[:columns, :rows].T.reshape(-1, 2)
    seen, size = _corners(config, cv2)
    if len(seen) < _FEWEST:
        raise DataError(
            f"{config.images}: the board of {config.board} inner corners was found in {len(seen)} images, at least "
            f"{_FEWEST} are needed; --board counts inner corners, one less than squares each way"
        )
    rms, K, coefficients, *_ = cv2.calibrateCamera([board] * len(seen), list(seen.values()), size, None, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    camera = {
        "K": K.tolist(),
        "distortion": {"model": "opencv", "coefficients": coefficients.ravel().tolist()},
        "size": list(size),
        "rms_px": float(rms),
        "images": sorted(seen),
    }
    write_json(config.out, camera)
    sys.stdout.write(
        f"{len(seen)} images of {size[0]}x{size[1]}, residual {rms:.3f} px\n"
        f"focal lengths {K[0, 0]:.2f} and {K[1, 1]:.2f}, principal point {K[0, 2]:.2f} and {K[1, 2]:.2f} px\n"
        f"camera in {config.out}\n"
    )


def _corners(config: CalibrateConfig, cv2: Any) -> tuple[dict[str, Any], tuple[int, int]]:
    """Corners by file name, and the size of the images."""
    folder = pathlib.Path(config.images)
    if not folder.is_dir():
        raise DataError(f"--images {config.images}: no such folder")
    seen: dict[str, Any] = {}
    sizes: dict[tuple[int, int], str] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        found, corners = (False, None) if image is None else cv2.findChessboardCornersSB(image, config.corners)
        if image is None or not found:
            sys.stderr.write(f"{path.name}: {'no image' if image is None else 'no board seen'}\n")
            continue
        sizes.setdefault((image.shape[1], image.shape[0]), path.name)
        seen[path.name] = corners
    if len(sizes) > 1:
        several = ", ".join(f"{name} has {w}x{h}" for (w, h), name in sizes.items())
        raise DataError(f"{config.images}: images of one camera have one size, but {several}")
    return seen, next(iter(sizes), (0, 0))


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
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"{path} holds no camera: {error}") from error
    numbers = [*K.flatten().tolist(), *coefficients.tolist()]
    if K.shape != (3, 3) or not all(math.isfinite(number) for number in numbers):
        raise DataError(f"{path} holds no camera: K must be 3x3, and all numbers finite")
    return CameraFile(K, distortion)
