"""What a checkpoint says of a pose network, so that it finds poses without the data it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from robustvision_core.data import Mesh, PoseObject, PoseSet
from robustvision_core.errors import CheckpointError
from robustvision_core.predict import describe

from diffpnp_pose.cli.camera import CameraFile, pinhole
from diffpnp_pose.cli.crops.crop_set import CropSet
from diffpnp_pose.cli.data import MEAN, STD
from diffpnp_pose.cli.recipes import TrainConfig

PROGRAM = "diffpnp-pose"


@dataclass(frozen=True)
class PosePreprocessing:
    """How images are prepared: a crop, or the whole image, resized to one size and normalised.

    Attributes:
        width: Of what the network takes, pixels.
        height: As `width`.
        margin: How much larger than the object's box a crop is; 0 takes whole images.
        mean: Of each channel on the scale 0..1.
        std: As `mean`.
    """

    width: int
    height: int
    margin: float
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def describe_run(config: TrainConfig, training: PoseSet) -> dict[str, Any]:
    """What a run's checkpoints hold besides weights."""
    _, height, width = training.shape
    prepared = PosePreprocessing(width, height, config.crop.margin if config.crop.enabled else 0.0)
    thing = training.objects[0]
    held: dict[str, Any] = {"keypoints": thing.keypoints.cpu(), "diameter": thing.diameter}
    if thing.mesh is not None:
        held["mesh"] = [thing.mesh.vertices.cpu(), thing.mesh.faces.int().cpu(), thing.mesh.colours.half().cpu()]
    one = training.K[0]
    same = not isinstance(training, CropSet) and bool((one == training.K).all())
    camera = {"K": one.tolist(), "size": [width, height]} if same else None
    return describe(PROGRAM, prepared, [thing.name], object=held, camera=camera)  # pyright: ignore[reportArgumentType]


def read_description(about: Mapping[str, Any], where: str) -> tuple[PosePreprocessing, PoseObject, CameraFile | None]:
    """Preprocessing, object and, where all training images had one camera, that.

    Raises:
        CheckpointError: It does not describe a pose network.
    """
    try:
        prepared = about["preprocessing"]
        numbers = int(prepared["width"]), int(prepared["height"]), float(prepared["margin"])
        own = PosePreprocessing(*numbers, tuple(prepared["mean"]), tuple(prepared["std"]))
        held, mesh = about["object"], None
        if "mesh" in held:
            vertices, faces, colours = held["mesh"]
            mesh = Mesh(vertices, faces.long(), colours.float())
        thing = PoseObject(about["classes"][0], held["keypoints"], held["diameter"], mesh)
        camera = about["camera"] and pinhole(torch.tensor(about["camera"]["K"]), tuple(about["camera"]["size"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{where} does not describe a pose network: {error!r}") from error
    return own, thing, camera
