"""Options of the verbs `predict` and `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustvision_core.run.options import Checks


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Checks):
    """Predict on new, unlabelled images with a trained run; the data it was trained on is not needed."""

    run: str
    """Run folder that training wrote."""
    images: str
    """An image, a folder of them with all its subfolders, or a pattern in quotes, as "photos/*.jpg"."""
    out: str = "predictions"
    """Folder for predictions.csv and predictions.png."""
    which: Literal["auto", "best", "checkpoint"] = "auto"
    """best is the selected epoch, checkpoint the last one; auto takes best where there is one."""
    strict: bool = False
    """Stop at an image that cannot be read; else it is named and left out."""
    batch_size: int = 128
    """Images a step."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    progress: bool = True
    """Show a bar on a terminal."""

    def __post_init__(self) -> None:
        self.at_least(1, "batch_size")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write the network of a trained run in a form that needs none of our packages."""

    run: str
    """Run folder that training wrote."""
    out: str = "exported"
    """Folder for the network and preprocessing.json, which says how to prepare images for it."""
    format: Literal["torch", "onnx"] = "torch"
    """torch: a torch.export program (.pt2); onnx: ONNX, checked against the network with onnxruntime. Either takes a
    batch of any size."""
    which: Literal["auto", "best", "checkpoint"] = "auto"
    """best is the selected epoch, checkpoint the last one; auto takes best where there is one."""
