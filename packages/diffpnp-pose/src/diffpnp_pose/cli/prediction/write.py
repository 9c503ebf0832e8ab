"""Poses as files: a table, BOP's table of results, and a picture."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from typing import Any

import torch
from robustvision_core.data import overlay, render_mesh
from robustvision_core.errors import DataError
from robustvision_core.predict.write import find_images, with_progress
from robustvision_core.run import plots
from robustvision_core.run.files import write_csv
from torch import Tensor

from diffpnp_pose.cli.camera import read_camera
from diffpnp_pose.cli.crops.boxes import Boxes
from diffpnp_pose.cli.options import PredictConfig
from diffpnp_pose.cli.prediction.predictor import PosePredictions, PosePredictor, Prepared
from diffpnp_pose.geometry.projection import project
from diffpnp_pose.geometry.rotations import so3_log

SHEET = 12  # images in the picture
SURE = 0.3  # score from which a pose is trusted
HEADER = ("file", "valid", "score", "rx", "ry", "rz", "tx", "ty", "tz", "rms_px")
BOP_HEADER = ("scene_id", "im_id", "obj_id", "score", "R", "t", "time")


class PoseTables:
    """`predictions.csv` and `bop.csv` of a folder, kept as poses come and written at the end.

    The first has a row an image: the rotation vector in radians, the translation in metres, the residual of the
    keypoints in pixels; the numbers of an image without a valid pose are empty. The second is BOP's: rotation row by
    row, millimetres, valid poses only; scene and image are the numbers in the path, else 0 and the row's number.

    Args:
        folder: Where to write.
        number: Of the object.
    """

    def __init__(self, folder: pathlib.Path, number: int) -> None:
        self._folder, self._number, self._count = folder, number, 0
        self._rows: list[list[Any]] = []
        self._bop: list[list[Any]] = []

    def add(self, part: PosePredictions) -> None:
        """Rows of a batch."""
        vectors = so3_log(part.R.double())
        for k, file in enumerate(part.files):
            valid, score = bool(part.valid[k]), f"{float(part.score[k]):.4f}"
            numbers = [*vectors[k].tolist(), *part.t[k].tolist(), float(part.rms[k])]
            values = [f"{value:.7g}" for value in numbers] if valid else [""] * len(numbers)
            self._rows.append([os.fspath(file), int(valid), score, *values])
            if valid:
                scene, image = numbers_of(file, self._count)
                R = " ".join(f"{value:.8g}" for value in part.R[k].flatten().tolist())
                t = " ".join(f"{1000 * value:.8g}" for value in part.t[k].tolist())
                self._bop.append([scene, image, self._number, score, R, t, -1])
            self._count += 1

    def write(self) -> None:
        """Both files, whole or not at all."""
        for name, header, rows in (("predictions.csv", HEADER, self._rows), ("bop.csv", BOP_HEADER, self._bop)):
            write_csv(self._folder / name, [header, *rows])


def numbers_of(file: Any, count: int) -> tuple[int, int]:
    """Scene and image of a path as BOP lays them out, `.../000002/rgb/000003.png`; else 0 and `count`."""
    found = re.search(r"(\d+)/(?:rgb|gray)/(\d+)\.\w+$", pathlib.PurePath(file).as_posix())
    return (int(found[1]), int(found[2])) if found else (0, count)


def write_poses(predictor: PosePredictor, options: PredictConfig) -> pathlib.Path:
    """Find the object in the images that `options` names; returns the folder with the tables and `predictions.png`.

    Images that cannot be read, or have no box, are named on the error stream and left out. After Ctrl-C the tables hold
    what was done until then.

    Raises:
        DataError: There are no images, none can be read, or, with `strict`, one cannot.
    """
    files, out = find_images(options.images), pathlib.Path(options.out)
    camera = read_camera(options.camera) if options.camera else None
    boxes = Boxes.read(options.boxes) if options.boxes else None
    shown = files[:: -(-len(files) // SHEET)]
    tables, sheet, done, broken, unsure = PoseTables(out, options.object), [], 0, 0, 0
    try:
        parts = predictor.stream(files, camera, boxes, options.batch_size, strict=options.strict)
        for part in with_progress(parts, len(files), options):
            tables.add(part)
            kept = [(k, file) for k, file in enumerate(part.files) if file in shown]
            sheet += [(predictor.prepare(file, camera, boxes and boxes.of(str(file))), part, k) for k, file in kept]
            done, broken = done + len(part.files), broken + len(part.broken)
            unsure += int((part.score < SURE).sum())
    finally:
        if done:
            tables.write()
    if not done:
        raise DataError(f"{options.images}: none of {broken} images can be read")
    draw_sheet(predictor, sheet, out / "predictions.png")
    _say(out, done, broken, unsure)
    return out


def _say(out: pathlib.Path, done: int, broken: int, unsure: int) -> None:
    """Name the files, and the images without a sure pose."""
    left_out = f", {broken} left out" if broken else ""
    files = ", ".join(str(out / name) for name in ("predictions.csv", "bop.csv", "predictions.png"))
    sys.stdout.write(f"{done} images{left_out}: {files}\n")
    if unsure:
        sys.stdout.write(f"{unsure} of {done} have a score below {SURE}: heat-maps so wide that the pose is a guess\n")


def draw_sheet(
    predictor: PosePredictor, sheet: list[tuple[Prepared, PosePredictions, int]], path: pathlib.Path
) -> None:
    """Images as the network sees them, with the object over them at its pose, the item at a place of its batch."""
    images = (
        over(predictor, ready.image, part.R[k], part.t[k], ready.K) if part.valid[k] else ready.image
        for ready, part, k in sheet
    )
    titles = [f"certainty {part.score[k]:.2f}" if part.valid[k] else "no pose" for _, part, k in sheet]
    plots.sheet(images, titles, path, columns=4, width=2.4, height=2.4)


def over(predictor: PosePredictor, image: Tensor, R: Tensor, t: Tensor, K: Tensor) -> Tensor:
    """An image (3, H, W) uint8 with the object over it; crosses at its keypoints where it has no mesh."""
    mesh, (height, width) = predictor.object.mesh, image.shape[1:]
    if mesh is not None:
        return overlay(image, render_mesh(mesh.vertices, mesh.faces, mesh.colours, R, t, K, (width, height)), 0.7)
    seen = project(predictor.object.keypoints, R, t, K).round().long()
    marked = image.clone()
    for x, y in seen.tolist():
        marked[:, max(y - 2, 0) : max(y + 3, 0), max(x - 2, 0) : max(x + 3, 0)] = torch.tensor([0, 255, 0])[
            :, None, None
        ]
    return marked
