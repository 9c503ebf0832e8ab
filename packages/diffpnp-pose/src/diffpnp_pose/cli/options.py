"""What the verbs besides `train` are told. Imports nothing heavy: help must answer at once."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass, replace
from typing import Literal

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.predict.options import PredictOptions
from robustvision_core.run.options import EvaluateOptions

from diffpnp_pose.cli.recipes import SOLVERS, TrainConfig

Decoding = Literal["centre_of_mass", "argmax", "dark"]
Start = Literal["auto", "weak_perspective", "epnp", "sqpnp"]


@dataclass(frozen=True)
class EvaluateConfig(EvaluateOptions):
    """Test a trained network on the test set of its data, and draw what it finds."""

    which: Literal["checkpoint", "best"] = "best"
    """best (the epoch that the validation set selected) or checkpoint (the last one)."""
    solver: str = ""
    """exact, bpnp, bpnp-fast or epnp; empty takes that of training."""
    decode: Decoding = "centre_of_mass"
    """How keypoints are read from heat-maps."""
    out: str = ""
    """Folder for the pictures; empty takes plots/ of the run."""

    def __post_init__(self) -> None:
        if self.solver and self.solver not in SOLVERS:
            raise unknown_name("solver", self.solver, SOLVERS)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(PredictOptions):
    """Find the object of a trained run in new images or a video; the data it was trained on is not needed."""

    images: str = ""
    """An image, a folder of them with all its subfolders, or a pattern in quotes, as "photos/*.jpg"."""
    video: str = ""
    """A video instead; overlay.mp4 shows it with the object over it."""
    camera: str = ""
    """A camera.json of `calibrate`; empty takes the camera of the training images, where they had one."""
    boxes: str = ""
    """A detector's boxes around the object, for networks of crops: CSV (file, left, top, right, bottom; of a video,
    file is the frame's number) or BOP's JSON; without, the whole image is taken for the crop."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom of the object in the first frame of a video, pixels; later frames follow the pose."""
    object: int = 1
    """Number of the object in bop.csv."""
    out: str = "predictions"
    """Folder for predictions.csv, bop.csv and predictions.png or overlay.mp4."""
    batch_size: int = 32
    """Images a step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.images) == bool(self.video):
            raise UserError("give --images or --video, one of the two")


@dataclass(frozen=True)
class DemoConfig:
    """Train a small network on rendered drones, then go on with and without the PnP loss for as many epochs."""

    epochs: int = 12
    """Passes over the training images on heat-maps alone."""
    pose_epochs: int = 4
    """Passes after that, with and without."""
    train_size: int = 1024
    """Rendered images to train on."""
    test_size: int = 512
    """Rendered images to test on."""
    seed: int = 0
    """Of the network and the order."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    data_root: str = ""
    """Where the rendered images are kept; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch missing data where that can be done; the images of the demo are rendered here."""
    out: str = ""
    """Folder for the pictures; empty makes a new one under runs/."""

    def __post_init__(self) -> None:
        for name in ("epochs", "pose_epochs", "train_size", "test_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")

    def train_config(self) -> TrainConfig:
        """What both trainings have in common."""
        return replace(
            TrainConfig.PRESETS["quick"],
            data_root=self.data_root,
            download=self.download,
            size="96x72",
            distance=(0.7, 1.0),
            train_size=self.train_size,
            test_size=self.test_size,
            network_size="micro",
            batch_size=32,
            progress=False,
        )


@dataclass(frozen=True)
class SolveConfig:
    """Find the pose of every item in a file of correspondences, with its covariance.

    JSON: {"K": 3x3, "points_3d": [[x, y, z], ...], "items": [{"id": "a", "points_2d": [[u, v], ...]}, ...]}; points_3d,
    K and weights may stand in each item. CSV: columns u v x y z, and if wanted weight and id.
    """

    file: str
    """A .json or .csv file."""
    camera: tuple[float, float, float, float] | None = None
    """fx fy cx cy in pixels, for items without K."""
    camera_file: str = ""
    """A camera.json of `calibrate`, instead of the four numbers; its lens distortion is taken off the image points."""
    init: Start = "auto"
    """Where the search starts."""
    huber: float = 0.0
    """Residuals over so many pixels pull with constant force; 0 is least squares."""
    consensus: float = 0.0
    """Points further than so many pixels from the best sampled pose are left out; 0 keeps all."""
    noise: float = 1.0
    """Standard deviation of the image points in pixels, for the covariance; 0 estimates it from each item's residuals,
    which needs more than three points and no --huber. With weights, the noise of a point is this over the root of its
    weight."""
    out: str = ""
    """Write the poses to this JSON file."""

    def __post_init__(self) -> None:
        for name in ("huber", "consensus", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.camera is not None and self.camera_file:
            raise UserError("--camera and --camera-file both say which camera it is: give one")
        if self.huber and self.consensus:
            raise UserError("--huber and --consensus are two ways to treat outliers: give one")
        if self.huber and not self.noise:
            raise UserError(
                "--noise 0 takes the noise from residuals, in which --huber leaves outliers: give the noise"
            )


@dataclass(frozen=True)
class CalibrateConfig:
    """Find a camera's matrix and lens distortion in photos of a chessboard, with OpenCV."""

    images: str
    """Folder of photos, all of one camera and size; three or more, from different sides."""
    board: str = "9x6"
    """Inner corners of the board, columns x rows: one less than its squares each way."""
    square: float = 1.0
    """Side of a square, in the unit that translations are wanted in; the camera itself does not depend on it."""
    out: str = "camera.json"
    """The file to write, which `solve --camera-file` reads."""

    def __post_init__(self) -> None:
        if not 0 < self.square < math.inf:
            raise UserError(f"square must be positive, got {self.square}")
        if min(self.corners) < 3:
            raise UserError(f"--board {self.board}: at least 3 inner corners are needed each way")

    @property
    def corners(self) -> tuple[int, int]:
        """Columns and rows of inner corners."""
        columns, _, rows = self.board.partition("x")
        if not (columns.isdecimal() and rows.isdecimal()):
            raise UserError(f"--board {self.board!r}: expected columns x rows of inner corners, as in 9x6")
        return int(columns), int(rows)


@dataclass(frozen=True)
class RenderConfig:
    """Draw a drone at a pose, before a plain background; the camera is UAVA's."""

    drone: Literal["m2ed", "tello"] = "m2ed"
    """m2ed is 0.6 m across, tello a quarter of that."""
    rotation: tuple[float, float, float] = (155.0, 45.0, 20.0)
    """Rotation vector from the drone (x to its left, y up, z forward) to the camera (x right, y down, z into the
    scene), degrees: 180 0 0 looks the drone in the face."""
    translation: tuple[float, float, float] = (0.0, 0.0, 1.2)
    """Of the drone in the camera's frame, metres."""
    size: str = "small"
    """tiny (128x96), small (320x240) or WxH."""
    out: str = "drone.png"
    """The picture, a .png file."""

    def __post_init__(self) -> None:
        if pathlib.Path(self.out).suffix.lower() != ".png":
            raise UserError(f"--out must end in .png, got {self.out!r}")
        if not all(math.isfinite(value) for value in (*self.rotation, *self.translation)):
            raise UserError("rotation and translation must be finite")
