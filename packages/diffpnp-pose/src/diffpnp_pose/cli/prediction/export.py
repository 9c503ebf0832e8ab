"""The keypoint network in forms that need none of our packages."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import torch
from robustvision_core.errors import UserError
from robustvision_core.run.files import atomic_write, write_json
from torch import Tensor, nn

from diffpnp_pose.cli.inference import keypoints_of
from diffpnp_pose.cli.prediction.predictor import PosePredictor
from diffpnp_pose.heatmaps.decoding import spatial_softmax

TOLERANCE = 0.01  # pixels
_BATCH = 3  # of the images that an export is tried on: another than the one it was traced with


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
    network = Keypoints(copy.deepcopy(predictor.network)).cpu().eval().to(memory_format=torch.contiguous_format)
    example = torch.zeros(2, 3, own.height, own.width)
    trial = torch.randn(_BATCH, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    write, run = {"torch": (_write_torch, _run_torch), "onnx": (_write_onnx, _run_onnx)}[format]
    path = write(_program(network, example), out)
    with torch.no_grad():
        worst = float((run(path, trial) - network(trial)).abs().max())
    if not worst <= TOLERANCE:
        raise UserError(f"{path} finds keypoints {worst:.2g} pixels from the network's: it is not to be used")
    more = {"object": predictor.object.name, "keypoints": predictor.object.keypoints.tolist(), "scale": 255}
    write_json(out / "preprocessing.json", own.plain() | more)
    return path


def _program(network: nn.Module, example: Tensor) -> Any:
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises many kinds, none of them public
        raise UserError(f"torch.export cannot trace this network: {str(error).splitlines()[0]}") from error


def _write_torch(program: Any, out: pathlib.Path) -> pathlib.Path:
    path = out / "model.pt2"
    with atomic_write(path) as temporary:
        named = temporary.with_suffix(".pt2")  # torch.export.save insists on it
        torch.export.save(program, named)
        named.replace(temporary)
    return path


def _run_torch(path: pathlib.Path, images: Tensor) -> Tensor:
    return torch.export.load(path).module()(images).detach()


def _write_onnx(program: Any, out: pathlib.Path) -> pathlib.Path:
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(f'--format onnx needs {error.name}: pip install "robustvision-core[export]"') from error
    path = out / "model.onnx"
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None
    with atomic_write(path) as temporary:
        written.save(str(temporary))
    return path


def _run_onnx(path: pathlib.Path, images: Tensor) -> Tensor:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (points,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(points)
