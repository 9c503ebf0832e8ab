"""Poses in images from anywhere, by a trained run."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from robustvision_core.data import PoseObject
from robustvision_core.data.batches.statistics import normalise
from robustvision_core.data.reading.decode import decode, decode_image
from robustvision_core.errors import DataError
from robustvision_core.predict import read_about
from robustvision_core.predict.preprocessing import as_pil
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from diffpnp_pose.cli.camera import CameraFile, corner_based, pinhole, undistorted
from diffpnp_pose.cli.crops.boxes import Box, Boxes
from diffpnp_pose.cli.crops.crop_set import around, moved, scales, window
from diffpnp_pose.cli.inference import certainty, find_poses, keypoints_of, new_network
from diffpnp_pose.cli.prediction.about import PosePreprocessing, read_description
from diffpnp_pose.cli.recipes import Solver, TrainConfig
from diffpnp_pose.distortion import undistort_points
from diffpnp_pose.geometry.projection import project
from diffpnp_pose.heatmaps.decoding import spatial_softmax


@dataclass(frozen=True)
class PosePredictions:
    """What was found in N images; tensors are on the CPU.

    Attributes:
        R: (N, 3, 3) rotations, object to camera; the identity where no pose is valid.
        t: (N, 3) metres; 0 where no pose is valid.
        valid: (N,) bool.
        score: (N,) how narrow the heat-maps are, 1 at best.
        points: (N, P, 2) keypoints, pixels of the image, its corner at (0, 0) and the lens's distortion taken off.
        rms: (N,) root mean square distance of the keypoints from those of the pose, pixels.
        K: (N, 3, 3) camera of those pixels.
        files: Path of each of the N, empty for what was given as pixels.
        broken: Files that could not be read or have no box, and why; they are not among the N.
    """

    R: Tensor
    t: Tensor
    valid: Tensor
    score: Tensor
    points: Tensor
    rms: Tensor
    K: Tensor
    files: Sequence[Any] = ()
    broken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """One image as the network takes it.

    Attributes:
        image: (3, H, W) uint8.
        K: (3, 3) of it, its corner at (0, 0).
        source_K: (3, 3) of the photo it comes from.
        photo: (3, h, w) uint8, that photo with the lens's distortion taken off.
    """

    image: Tensor
    K: Tensor
    source_K: Tensor
    photo: Tensor


class PosePredictor:
    """Finds the pose of one object in images.

    Args:
        network: Normalised images (B, 3, H, W) to a list of logits, with `pose_maps`.
        preprocessing: From images to what the network takes.
        thing: The object and its keypoints.
        sigma: Standard deviation of the targets it was trained on, as a share of the sides.
        camera: Of images whose camera is not given; None where there is none.
        solver: Where poses come from.
        weighted: Let narrow heat-maps count for more.
        device: Where it runs; the network must be there.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: PosePreprocessing,
        thing: PoseObject,
        *,
        sigma: float = 0.035,
        camera: CameraFile | None = None,
        solver: Solver = "exact",
        weighted: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = network.eval()
        self.preprocessing, self.object, self.classes = preprocessing, thing, (thing.name,)
        self.sigma, self.camera, self.weighted = sigma, camera, weighted
        self.solver: Solver = solver
        self.device = torch.device(device)

    def predict(
        self,
        images: Any,
        camera: CameraFile | Tensor | None = None,
        boxes: Sequence[Box] | Boxes | None = None,
        batch_size: int = 32,
    ) -> PosePredictions:
        """The object's pose in each image.

        Args:
            images: A path, a PIL image, an array (H, W, C) or a tensor (C, H, W), both uint8, or a sequence of such.
            camera: A matrix (3, 3) in pixels, the image's corner at (0, 0), or a camera file; None takes that of the
                training images, where they had one.
            boxes: Around the object, for networks of crops: one for each image, or of a file; None takes whole images.
            batch_size: Images a step.

        Raises:
            DataError: One is no image, or there is no camera.
        """
        sources = list(images) if isinstance(images, list | tuple) else [images]
        parts = list(self.stream(sources, camera, boxes, batch_size, strict=True))
        if not parts:
            raise DataError("no images were given")
        names = ("R", "t", "valid", "score", "points", "rms", "K")
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return PosePredictions(**joined, files=[_name(source) for source in sources])

    def stream(
        self,
        sources: Sequence[Any],
        camera: CameraFile | Tensor | None = None,
        boxes: Sequence[Box] | Boxes | None = None,
        batch_size: int = 32,
        *,
        strict: bool = False,
    ) -> Iterator[PosePredictions]:
        """Poses batch by batch, for any number of images; arguments as of `predict`.

        Args:
            sources: The images.
            camera: Theirs.
            boxes: Around the object.
            batch_size: Images a step.
            strict: Raise at a broken image; else it is in `broken` of its batch.
        """
        for start in range(0, len(sources), batch_size):
            ready, files, broken = [], [], {}
            for number, source in enumerate(sources[start : start + batch_size], start):
                try:
                    ready.append(self.prepare(source, camera, _box(boxes, number, source)))
                    files.append(source)
                except DataError as error:
                    if strict:
                        raise
                    broken[str(source)] = str(error)
            yield self.find(ready, files, broken)

    def prepare(self, source: Any, camera: CameraFile | Tensor | None = None, box: Box | None = None) -> Prepared:
        """One image, undistorted, cropped where the network takes crops, and its camera.

        Raises:
            DataError: It is no image, or there is no camera.
        """
        name = _name(source) or "image"
        path = isinstance(source, str | pathlib.Path)
        photo = decode(pathlib.Path(source), name) if path else decode_image(as_pil(source, name), name)
        size = (photo.shape[2], photo.shape[1])
        if (own := self.camera if camera is None else camera) is None:
            raise DataError(f"{name}: no camera: give --camera, a file as calibrate writes, or camera= from Python")
        own = (pinhole(own) if isinstance(own, Tensor) else own).at(size, name)
        photo, K = undistorted(photo, own), corner_based(own.K).float()
        margin = self.preprocessing.margin if box is not None and self.preprocessing.margin else 1.0
        place = torch.tensor([box or (0.0, 0.0, *map(float, size))])
        if box is not None and own.bends:
            corners = undistort_points(place.view(2, 2).double() - 0.5, own.K, own.distortion) + 0.5
            place = corners.float().view(1, 4)
        if not self.preprocessing.margin:
            windows = torch.tensor([[0, 0, *size]])
        else:
            windows = around(place, self.preprocessing.size, margin)
        image = window(photo, windows[0].tolist(), self.preprocessing.size)[:3]
        scale = scales(windows, self.preprocessing.size)
        return Prepared(image, moved(K[None], scale, windows[:, :2].float())[0], K, photo)

    @torch.no_grad()
    def find(
        self, ready: Sequence[Prepared], files: Sequence[Any] = (), broken: Mapping[str, str] | None = None
    ) -> PosePredictions:
        """The poses in prepared images."""
        P = len(self.object.keypoints)
        if not ready:
            return _none(P, broken or {})
        images = torch.stack([one.image for one in ready])
        own = self.preprocessing
        mean, std = torch.tensor(own.mean), torch.tensor(own.std)
        logits = self.network.pose_maps(self.network(normalise(images, mean, std).to(self.device)))  # pyright: ignore[reportCallIssue]
        maps = spatial_softmax(logits.float()).cpu()
        K, source_K = (torch.stack([getattr(one, name) for one in ready]) for name in ("K", "source_K"))
        points, sure = keypoints_of(maps, images), certainty(maps, self.sigma)
        z = self.object.keypoints.expand(len(ready), P, 3)
        R, t, valid = find_poses(self.solver, points, z, K, sure if self.weighted else None)
        seen = _in_photo(points, K, source_K)
        off = (project(z, R, t, source_K) - seen).square().sum(-1).mean(1).sqrt()
        R = torch.where(valid[:, None, None], R, torch.eye(3))
        t = torch.where(valid[:, None], t, 0.0)
        return PosePredictions(R, t, valid, sure.mean(1), seen, off, source_K, files, broken or {})


def _none(keypoints: int, broken: Mapping[str, str]) -> PosePredictions:
    no = torch.zeros(0)
    matrices, points = no.view(0, 1, 1).expand(0, 3, 3), no.view(0, 1, 1).expand(0, keypoints, 2)
    return PosePredictions(matrices, no.view(0, 1).expand(0, 3), no.bool(), no, points, no, matrices, (), broken)


def _in_photo(points: Tensor, K: Tensor, source_K: Tensor) -> Tensor:
    """Pixels (B, P, 2) of crops as those of their photos, by the cameras of both."""
    scale = K[:, None, [0, 1], [0, 1]] / source_K[:, None, [0, 1], [0, 1]]
    return (points - K[:, None, :2, 2]) / scale + source_K[:, None, :2, 2]


def _box(boxes: Sequence[Box] | Boxes | None, number: int, source: Any) -> Box | None:
    if isinstance(boxes, Boxes):
        return boxes.of(_name(source))
    return boxes[number] if boxes is not None else None


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | pathlib.Path) else ""


def load_predictor(folder: str | pathlib.Path, which: str = "auto", device: str = "auto") -> PosePredictor:
    """The keypoint network of a run folder, its object and solver; the data it was trained on is not needed.

    Args:
        folder: The run folder.
        which: `best`, `checkpoint`, or `auto` for best where there is one.
        device: auto, cpu, cuda or mps.
    """
    path, about = read_about(folder, which)
    config = read_config(folder, TrainConfig, "diffpnp-pose train")
    prepared, thing, camera = read_description(about, str(path))
    network = new_network(config, len(thing.keypoints))
    load_part(network, path)
    where = Runtime.from_env(device).device
    return PosePredictor(
        network.to(where),
        prepared,
        thing,
        sigma=config.sigma,
        camera=camera,
        solver=config.pose.solver,
        weighted=config.weighted,
        device=where,
    )
