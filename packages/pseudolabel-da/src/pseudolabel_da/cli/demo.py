"""`pseudolabel-da demo`: a digit classifier on backgrounds it has no label for, in under half a minute."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import torch
from robustvision_core.data import ImageSet
from robustvision_core.predict import Predictor, predict_unseen
from robustvision_core.run import plots as core_plots
from robustvision_core.run.folder import new_folder
from robustvision_core.run.runtime import Runtime

from pseudolabel_da.cli import plots
from pseudolabel_da.cli.data import load
from pseudolabel_da.cli.options import DemoConfig
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.train import fit_on, new_step, report
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord


def demo(config: DemoConfig) -> None:
    """Print the table and draw it."""
    torch.set_num_threads(1)  # as fast as two for images this small, and many times faster where others use the cores
    folder = pathlib.Path(config.out) if config.out else new_folder("runs", "pseudolabel-da-demo")
    quick = TrainConfig.PRESETS["quick"].changed(seed=config.seed, device=config.device, progress=False)
    alone = quick.changed(method="source", pretrain=quick.pretrain + quick.epochs, batch_norm="shared")
    control, *_ = run(alone)
    adapted, periods, predictor, new = run(quick)
    final = adapted["final"]
    rows = {
        f"source only, {quick.pretrain} epochs": adapted["start"],
        f"source only, {alone.pretrain} epochs": control["final"]["target"]["accuracy"],
        "adapted with pseudo-labels": final["target"]["accuracy"],
    }
    lines = ["test accuracy on digits with coloured backgrounds, no label of which was seen, %"]
    lines += [f"{name:<30}{100 * value:>8.1f}" for name, value in rows.items()]
    lines.append("pseudo-labels, and the wrong ones among them:")
    lines += [f"  {record.selected:>4} of {record.pool}, {record.wrong} wrong" for record in periods]
    draw(rows, folder / "plots" / "demo.png")
    plots.periods(periods, folder / "plots" / "periods.png")
    lines.append(predict_unseen(predictor, new, folder))
    sys.stdout.write("\n".join([*lines, f"picture: {folder / 'plots' / 'demo.png'}", f"run folder: {folder}"]) + "\n")


def run(config: TrainConfig) -> tuple[dict[str, Any], Sequence[PeriodRecord], Predictor, ImageSet]:
    """The summary of one training, its periods, what it predicts with, and the target's test images."""
    with Runtime.session(config.device, seed=config.seed) as runtime:
        data = load(config, runtime.device)
        step = new_step(config, data, runtime)
        fit_on(config, data, runtime, None, step)
        test = data.target_test
        assert test is not None  # the demo's target has labels
        summary = report(config, data, runtime, step)[1]
        predictor = Predictor(step.network, data.preprocessing, test.classes, device=runtime.device)
        return summary, step.state.periods, predictor, test


def draw(rows: dict[str, float], path: pathlib.Path) -> None:
    """Bars of accuracy."""
    drawn, axes = core_plots.figure()
    bars = axes.bar(list(rows), [100 * value for value in rows.values()], color=["tab:gray", "tab:gray", "tab:blue"])
    axes.bar_label(bars, fmt="%.0f")
    axes.set(ylabel="accuracy on the target's test set, %", ylim=(0, 105), title="digits on coloured backgrounds")
    core_plots.save(drawn, path)
