"""`pseudolabel-da evaluate`: a trained classifier on the test sets of both domains."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.metrics import accuracy, recalls
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from pseudolabel_da.cli import plots
from pseudolabel_da.cli.data import load
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.step import NETWORK


@dataclass(frozen=True)
class EvaluateConfig:
    """Test a trained classifier on the test sets of its data."""

    run: str
    """Run folder that training wrote."""
    which: str = "checkpoint"
    """checkpoint (the last epoch) or best (the selected one)."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Write the confusion matrix on the target as a picture here."""


def evaluate(config: EvaluateConfig) -> None:
    """Print recall of each class and accuracy, on source and target."""
    from pseudolabel_da.cli.train import confusions, make_network

    stored = read_config(config.run, TrainConfig, "pseudolabel-da train")
    trained = replace(stored, data_root=config.data_root, device=config.device, resume=False)
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        data = load(trained, runtime.device)
        network = make_network(trained, data).to(runtime.device)
        load_part(network, pathlib.Path(config.run) / f"{config.which}.pt", NETWORK)
        found = confusions(data, runtime, network)
    classes = data.target_test.classes
    summary = {name: summarise(counts, classes) for name, counts in found.items()}
    lines = [f"{'recall, %':<16}{'source':>9}{'target':>9}"]
    for name in classes:
        lines.append(f"{name:<16}" + "".join(f"{100 * part['recall'][name]:>9.2f}" for part in summary.values()))
    lines.append(f"{'accuracy':<16}" + "".join(f"{100 * part['accuracy']:>9.2f}" for part in summary.values()))
    sys.stdout.write("\n".join(lines) + "\n")
    if config.out:
        plots.confusion(found["target"], classes, config.out, "target test set")


def summarise(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, and recall of each class, of counts (K, K)."""
    return {"accuracy": accuracy(confusion), "recall": dict(zip(classes, recalls(confusion).tolist(), strict=True))}
