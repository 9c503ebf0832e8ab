"""`diffpnp-pose calibrate`: a camera from photos of a chessboard."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from robustvision_core.errors import DataError
from robustvision_core.run.files import write_json

from diffpnp_pose.cli.options import CalibrateConfig

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FEWEST = 3  # views from which five coefficients and a camera matrix are determined


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
