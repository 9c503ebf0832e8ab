"""`pseudolabel-da evaluate`: a trained classifier on the test sets of both domains."""

from __future__ import annotations

import sys

from robustvision_core.run.runtime import Runtime

from pseudolabel_da.cli import plots
from pseudolabel_da.cli.classifier import NETWORK
from pseudolabel_da.cli.data import load
from pseudolabel_da.cli.options import EvaluateConfig
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.testing import confusions, make_classifier, summarise


def evaluate(config: EvaluateConfig) -> None:
    """Print recall of each class and accuracy, on source and target."""
    trained = config.trained(TrainConfig, "pseudolabel-da train")
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        data = load(trained, runtime.device)
        network = make_classifier(trained.changed(weights=""), data).network.to(runtime.device)
        config.load_into(network, NETWORK)
        found = confusions(data, runtime, network)
    summary = {name: summarise(counts, data.classes) for name, counts in found.items()}
    lines = [f"{'recall, %':<16}" + "".join(f"{domain:>9}" for domain in summary)]
    for name in data.classes:
        lines.append(f"{name:<16}" + "".join(f"{100 * part['recall'][name]:>9.2f}" for part in summary.values()))
    lines.append(f"{'accuracy':<16}" + "".join(f"{100 * part['accuracy']:>9.2f}" for part in summary.values()))
    sys.stdout.write("\n".join(lines) + "\n")
    if "target" not in found:
        sys.stdout.write("the target has no labels to test on\n")
    elif config.out:
        plots.confusion(found["target"], data.classes, config.out, "target test set")
