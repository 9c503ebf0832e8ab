"""`pseudolabel-da train`: a classifier for one domain from labels of another."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import torch
from robustvision_core.data import DomainPair
from robustvision_core.predict import describe
from robustvision_core.run.folder import Run, load_part
from robustvision_core.run.loop import fit
from robustvision_core.run.metrics import accuracy
from robustvision_core.run.runtime import Runtime, channels_last
from torch import Tensor

from pseudolabel_da.cli import plots
from pseudolabel_da.cli.auto import with_augment
from pseudolabel_da.cli.classifier import NETWORK
from pseudolabel_da.cli.data import AdaptationData, deal, load
from pseudolabel_da.cli.diagnose import advice
from pseudolabel_da.cli.labels import write_labels
from pseudolabel_da.cli.phases import Phases
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.second import second_opinion
from pseudolabel_da.cli.step import Step, make_step
from pseudolabel_da.cli.testing import confusions, make_classifier, summarise
from pseudolabel_da.diagnosis.diagnostics import Verdict
from pseudolabel_da.diagnosis.error import Opinion


def train(config: TrainConfig, pair: DomainPair | None = None) -> pathlib.Path:
    """Train and adapt as `config` says, test once on both domains, and return the run folder.

    Args:
        config: Of the run.
        pair: Its domains, where they are loaded already.
    """
    with config.session(f"pseudolabel-da-{config.method}") as (runtime, run):
        data = load(config, runtime.device) if pair is None else deal(config, pair, runtime.device)
        config = with_augment(config, data, runtime, run.folder)
        step = new_step(config, data, runtime)
        run.about = describe("pseudolabel-da", data.preprocessing, data.classes)
        second = second_opinion(config, data, runtime, run, _fit_second)
        records = fit_on(config, data, runtime, run, step, second)
        if runtime.is_main:
            finish(config, data, runtime, run, step, records)
        return run.folder


def new_step(config: TrainConfig, data: AdaptationData, runtime: Runtime) -> Step:
    """The step of `config`, with a new network, that of `init`, or one that starts from `weights`."""
    made = make_classifier(config, data)
    if made.said and runtime.is_main:
        sys.stderr.write(f"pseudolabel-da: {made.said}\n")
    if config.init:
        load_part(made.network, config.init, NETWORK)
    return make_step(config, made.network, len(data.target), len(data.classes), runtime.device)


def _fit_second(config: TrainConfig, data: AdaptationData, runtime: Runtime, run: Run) -> Step:
    step = new_step(config, data, runtime)
    fit_on(config, data, runtime, run, step)
    return step


def fit_on(
    config: TrainConfig,
    data: AdaptationData,
    runtime: Runtime,
    run: Run | None,
    step: Step,
    second: Opinion | None = None,
) -> list[dict]:
    """Train `step` on the data; records of the epochs of both phases."""
    channels_last(step.network)
    wrapped = runtime.wrap(step)
    optimizer = torch.optim.AdamW(step.parameters(), config.training.lr, weight_decay=config.training.weight_decay)
    phases = Phases(config, data, step, optimizer, runtime, second)
    return fit(
        wrapped,
        optimizer,
        phases,
        epochs=phases.total,
        runtime=runtime,
        run=run,
        validate=phases.validate,
        monitor=None if config.checkpoint == "last" else "score",
        on_epoch=phases.begin,
        progress=config.progress,
    )


def finish(
    config: TrainConfig, data: AdaptationData, runtime: Runtime, run: Run, step: Step, records: list[dict]
) -> None:
    """Test the last and the selected epoch on both domains, and write summary and pictures."""
    found, summary = report(config, data, runtime, step)
    classes = data.classes
    chosen = run.load_best(step.network, NETWORK)
    if chosen is not None:
        found = confusions(data, runtime, step.network)
        summary["selected"] = {name: summarise(counts, classes) for name, counts in found.items()} | {"epoch": chosen}
    run.write_summary(summary)
    plots.training(records, config.pretrain, run.plot_path("training"))
    plots.periods(step.state.periods, run.plot_path("periods"))
    for name, counts in found.items():
        plots.confusion(counts, classes, run.plot_path(f"confusion_{name}"), f"{name} test set")
    if step.state.start:
        start = torch.tensor(step.state.start)
        plots.confusion(start, classes, run.plot_path("confusion_start"), "target test set, before adaptation")
    if len(step.state.pool.rows()):
        write_labels(step.state.pool, data, run.folder)
    sys.stdout.write("\n".join(said(config, found, summary, step, run.folder)) + "\n")


def said(
    config: TrainConfig, found: dict[str, Tensor], summary: dict[str, Any], step: Step, folder: pathlib.Path
) -> list[str]:
    """What a run ends with: accuracies where there are labels, and what is known of the pseudo-labels."""
    kept = "last" if config.checkpoint == "last" else f"selected by {config.checkpoint}"
    before = f" (before adaptation {summary['start']:.2%})" if "start" in summary else ""
    on = {"target": before, "source": ""}
    parts = [f"on the {name} {accuracy(found[name]):.2%}{more}" for name, more in on.items() if name in found]
    lines = [f"{kept} epoch: accuracy {', '.join(parts)}; run folder {folder}"]
    pool = step.state.pool
    if len(pool.rows()):
        lines.append(f"{len(pool.rows())} of {len(pool)} target images hold a label: {folder / 'pseudo_labels.csv'}")
    return lines + (advice(step.state.periods, config) if step.state.periods else [])


def report(
    config: TrainConfig, data: AdaptationData, runtime: Runtime, step: Step
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The confusions (K, K) of the last epoch by domain, and the summary of the run."""
    state, classes = step.state, data.classes
    found = confusions(data, runtime, step.network)
    summary: dict[str, Any] = {
        "method": config.method,
        "seed": config.seed,
        "samples": {"source": data.own, "labelled target": data.extra, "unlabelled target": len(data.target)},
        "final": {name: summarise(counts, classes) for name, counts in found.items()},
        "stopped": state.stopped,
        "verdict": verdict(state.periods),
        "periods": [record.as_dict() for record in state.periods],
    }
    if state.start:
        summary["start"] = accuracy(torch.tensor(state.start))
    return found, summary


def verdict(periods: list) -> str | None:
    """The last verdict that is not healthy, else healthy; None without a period."""
    if not periods:
        return None
    failures = [record.verdict for record in periods if record.verdict is not Verdict.HEALTHY]
    return (failures[-1] if failures else Verdict.HEALTHY).value
