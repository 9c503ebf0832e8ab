"""The keypoint network in forms that need none of our packages."""

from __future__ import annotations

import copy
import pathlib

import torch
from robustvision_core.predict import export_network
from robustvision_core.run.files import write_json
from torch import Tensor, nn

from diffpnp_pose.cli.inference import keypoints_of
from diffpnp_pose.cli.prediction.predictor import PosePredictor
from diffpnp_pose.heatmaps.decoding import spatial_softmax


class Keypoints(nn.Module):
    """Normalised images (B, 3, H, W) to keypoints (B, P, 2) in their pixels, the image's corner at (0, 0).

    Args:
        network: Images to a list of logits, with `pose_maps`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The keypoints."""
        maps = self.network.pose_maps(self.network(images))  # pyright: ignore[reportCallIssue]
        return keypoints_of(spatial_softmax(maps), images)


def export_keypoints(predictor: PosePredictor, out: str | pathlib.Path, format: str = "torch") -> pathlib.Path:
    """Write a run's keypoint network, and how to prepare images for it.

    Args:
        predictor: As `load_run` gives it.
        out: Folder for `model.pt2` or `model.onnx`, and `preprocessing.json`, which holds the object's keypoints too.
        format: `torch` for a `torch.export` program, `onnx` for ONNX. Both take a batch of any size.

    Returns:
        The file of the network.

    Raises:
        UserError: The network cannot be exported, what was written finds other keypoints, or onnx and onnxruntime are
            missing.
    """
    out, own = pathlib.Path(out), predictor.preprocessing
    network = Keypoints(copy.deepcopy(predictor.network)).to(memory_format=torch.contiguous_format)
    path = export_network(network, torch.zeros(2, 3, own.height, own.width), out, format)
    more = {"object": predictor.object.name, "keypoints": predictor.object.keypoints.tolist(), "scale": 255}
    write_json(out / "preprocessing.json", own.plain() | more)
    return path
