"""The verbs `predict` and `export`, the same in every package."""

from __future__ import annotations

import sys

from robustvision_core.predict.export import export as write_export
from robustvision_core.predict.load import load_run
from robustvision_core.predict.options import ExportOptions, PredictOptions
from robustvision_core.predict.write import write_predictions


def predict(config: PredictOptions) -> None:
    """Write what a run predicts for new images."""
    write_predictions(load_run(config.run, config.which, config.device), config)


def export(config: ExportOptions) -> None:
    """Write a run's network in another form."""
    path = write_export(load_run(config.run, config.which, "cpu"), config.out, config.format)
    sys.stdout.write(f"{path}: logits agree with the network's; images are prepared as preprocessing.json says\n")
