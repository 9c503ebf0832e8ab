"""Pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence

from robustvision_core.run import plots
from torch import Tensor


def training(records: Sequence[dict], path: str | os.PathLike[str]) -> None:
    """Loss, and the score that selects the epoch, over epochs."""
    epochs = [record["epoch"] for record in records]
    names = {"loss": "loss (noisy training labels)", "val_score": "selection score (noisy validation labels)"}
    series = {title: (epochs, [record[key] for record in records]) for key, title in names.items() if key in records[0]}
    plots.curves(series, path, xlabel="epoch", ylabel="value", title="training")


def confusion(counts: Tensor, classes: Sequence[str], path: str | os.PathLike[str], accuracy: float) -> None:
    """Shares (K, K) of each true class's samples by predicted class."""
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    title = f"clean test set, {100 * accuracy:.1f} % right"
    plots.matrix(shares, classes, path, title=title, xlabel="predicted", ylabel="true class")


def transition(matrix: Tensor, classes: Sequence[str], path: str | os.PathLike[str], title: str) -> None:
    """A noise model (K, K)."""
    plots.matrix(matrix, classes, path, title=title, xlabel="noisy label", ylabel="true class")
