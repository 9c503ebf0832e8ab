"""Poses frame by frame, and a video with the object over it."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from robustvision_core.errors import DataError, UserError
from torch import Tensor
from tqdm import tqdm

from diffpnp_pose.cli.camera import read_camera
from diffpnp_pose.cli.crops.boxes import Box, Boxes
from diffpnp_pose.cli.options import PredictConfig
from diffpnp_pose.cli.outputs import made
from diffpnp_pose.cli.prediction.predictor import PosePredictions, PosePredictor
from diffpnp_pose.cli.prediction.write import SURE, PoseTables, over
from diffpnp_pose.geometry.projection import project


def write_video(predictor: PosePredictor, options: PredictConfig) -> pathlib.Path:
    """Write `overlay.mp4` and the tables of a video; returns the folder.

    A network of crops looks where the pose of the frame before lets it expect the object; in the first frame, and where
    it was lost, in the box that `options` gives for it, else in the whole frame.

    Raises:
        DataError: The file is no video that OpenCV reads.
        UserError: The video cannot be written.
    """
    import cv2

    camera, out = read_camera(options.camera) if options.camera else None, made(options.out)
    boxes = Boxes.read(options.boxes) if options.boxes else None
    reader, tables = cv2.VideoCapture(options.video), PoseTables(out, options.object)
    writer, done, found = None, 0, 0
    rate = reader.get(cv2.CAP_PROP_FPS) or 25.0
    total = max(0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT))) or None
    hidden = not (options.progress and sys.stderr.isatty())
    try:
        frames = _followed(predictor, reader, camera, boxes, options.box)
        with tqdm(frames, total=total, desc="predicting", unit="frame", disable=hidden) as bar:
            for photo, part in bar:
                tables.add(part)
                shown = over(predictor, photo, part.R[0], part.t[0], part.K[0]) if part.valid[0] else photo
                writer = writer or _writer(cv2, out / "overlay.mp4", rate, shown)
                writer.write(cv2.cvtColor(shown.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR))
                done, found = done + 1, found + int(part.valid[0])
    finally:
        reader.release()
        if writer is not None:
            writer.release()
        if done:
            tables.write()
    if not done:
        raise DataError(f"{options.video} is no video that OpenCV can read")
    sys.stdout.write(
        f"{done} frames, {found} with a pose: {out / 'overlay.mp4'}, {out / 'predictions.csv'}, {out / 'bop.csv'}\n"
    )
    return out


def _followed(
    predictor: PosePredictor, reader: Any, camera: Any, boxes: Boxes | None, given: Box | None
) -> Iterator[tuple[Tensor, PosePredictions]]:
    """Each frame with its pose, sought where the frame before lets expect it."""
    box, number = None, 0
    while (frame := _next(reader)) is not None:
        ready = predictor.prepare(frame, camera, box or _given(boxes, number, given))
        part = predictor.find([ready], [f"{number:06d}"])
        yield ready.photo, part
        box, number = box_of(predictor, part), number + 1


def box_of(predictor: PosePredictor, part: PosePredictions) -> Box | None:
    """Around the object at the pose found, in pixels of the frame; None where there is no sure pose, or no crops."""
    if not (predictor.preprocessing.margin and bool(part.valid[0]) and float(part.score[0]) > SURE):
        return None
    mesh = predictor.object.mesh
    points = predictor.object.keypoints if mesh is None else mesh.vertices
    seen = project(points, part.R[0], part.t[0], part.K[0])
    left, top, right, bottom = torch.cat([seen.amin(0), seen.amax(0)]).tolist()
    return left, top, right, bottom


def _given(boxes: Boxes | None, frame: int, box: Box | None) -> Box | None:
    if boxes is None:
        return box
    try:
        return boxes.of(f"{frame:06d}")
    except DataError:
        return box


def _next(reader: Any) -> Tensor | None:
    """(3, H, W) uint8 of the next frame."""
    import cv2

    more, frame = reader.read()
    return torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).permute(2, 0, 1) if more else None


def _writer(cv2: Any, path: pathlib.Path, rate: float, frame: Tensor) -> Any:
    size = (frame.shape[2], frame.shape[1])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise UserError(f"{path} cannot be written: this OpenCV writes no MP4 video of {size[0]}x{size[1]}")
    return writer
