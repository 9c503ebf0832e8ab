"""Networks in forms that need none of our packages."""

from __future__ import annotations

import copy
import json
import pathlib
from typing import Any

import torch
from torch import Tensor, nn

from robustvision_core.errors import UserError
from robustvision_core.predict.predictor import Predictor
from robustvision_core.run.files import atomic_write, write_json

TOLERANCE = 1e-4
BATCH = 3  # of the images that an export is tried on: another than the one it was traced with


def export(predictor: Predictor, out: str | pathlib.Path, format: str = "torch") -> pathlib.Path:
    """Write the network of a predictor, and how to prepare images for it.

    Args:
        predictor: As `load_run` gives it.
        out: Folder for `model.pt2` or `model.onnx`, and `preprocessing.json`.
        format: `torch` for a `torch.export` program, `onnx` for ONNX. Both take a batch of any size, normalised images
            (B, C, H, W) float32, and give logits (B, K).

    Returns:
        The file of the network.

    Raises:
        UserError: The network cannot be exported, what was written gives other logits, or onnx and onnxruntime are
            missing.
    """
    out, own = pathlib.Path(out), predictor.preprocessing
    path = export_network(predictor.network, torch.zeros(2, own.channels, own.size, own.size), out, format)
    write_json(out / "preprocessing.json", own.plain() | {"classes": list(predictor.classes), "scale": 255})
    return path


def export_network(network: nn.Module, example: Tensor, out: str | pathlib.Path, format: str = "torch") -> pathlib.Path:
    """Write a network, and compare what was written with it on other images.

    Args:
        network: From one tensor (B, ...) to one tensor (B, ...).
        example: An input of two or more, of the shape and type that the network takes.
        out: Folder for `model.pt2` or `model.onnx`.
        format: As of `export`; the batch may be of any size.

    Returns:
        The file.

    Raises:
        UserError: As `export`.
    """
    network = copy.deepcopy(network).cpu().eval()
    path = {"torch": _write_torch, "onnx": _write_onnx}[format](network, example, pathlib.Path(out))
    trial = torch.randn(BATCH, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(trial)
    given = {"torch": _run_torch, "onnx": _run_onnx}[format](path, trial)
    worst = float((given - expected).abs().max())
    if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UserError(f"{path} gives values that differ by {worst:.2g} from the network's: it is not to be used")
    return path


def _write_torch(network: nn.Module, example: Tensor, out: pathlib.Path) -> pathlib.Path:
    path = out / "model.pt2"
    program = _program(network, example)
    with atomic_write(path) as temporary:
        named = temporary.with_suffix(".pt2")  # torch.export.save insists on it
        torch.export.save(program, named)
        named.replace(temporary)
    return path


def _run_torch(path: pathlib.Path, images: Tensor) -> Tensor:
    return torch.export.load(path).module()(images).detach()


def _write_onnx(network: nn.Module, example: Tensor, out: pathlib.Path) -> pathlib.Path:
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(f'--format onnx needs {error.name}: pip install "robustvision-core[export]"') from error
    path = out / "model.onnx"
    program = torch.onnx.export(_program(network, example), dynamo=True, verbose=False)
    assert program is not None
    with atomic_write(path) as temporary:
        program.save(str(temporary))
    return path


def _run_onnx(path: pathlib.Path, images: Tensor) -> Tensor:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(logits)


def _program(network: nn.Module, example: Tensor) -> Any:
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export raises many kinds, none of them public
        raise UserError(f"torch.export cannot trace this network: {str(error).splitlines()[0]}") from error


def read_preprocessing(path: str | pathlib.Path) -> dict[str, Any]:
    """What `preprocessing.json` says."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
