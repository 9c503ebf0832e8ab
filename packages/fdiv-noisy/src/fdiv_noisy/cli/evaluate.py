"""`fdiv-noisy evaluate`: a trained classifier on clean labels."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import replace

from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime

from fdiv_noisy.cli import plots
from fdiv_noisy.cli.classifier import confusion_on_test, make_network, summarise
from fdiv_noisy.cli.data import load
from fdiv_noisy.cli.options import EvaluateConfig
from fdiv_noisy.cli.recipes import TrainConfig


def evaluate(config: EvaluateConfig) -> None:
    """Print accuracy and recall of each class."""
    stored = read_config(config.run, TrainConfig, "fdiv-noisy train")
    here = {"data_root": config.data_root, "device": config.device, "download": config.download, "resume": False}
    trained = replace(stored, noise="none", init="", **here)
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        noisy = load(trained)
        network = make_network(trained, noisy.train).to(runtime.device)
        load_part(network, pathlib.Path(config.run) / f"{config.which}.pt")
        found = confusion_on_test(trained, network, noisy, runtime)
    summary = summarise(found, noisy.test.classes)
    lines = [f"{name:<16} {100 * value:6.2f} %" for name, value in summary["recall"].items()]
    sys.stdout.write("\n".join(["recall", *lines, f"{'accuracy':<16} {100 * summary['accuracy']:6.2f} %"]) + "\n")
    if config.out:
        plots.confusion(found, noisy.test.classes, config.out, summary["accuracy"])
