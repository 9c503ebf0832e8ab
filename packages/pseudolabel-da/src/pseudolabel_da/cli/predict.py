"""What a trained run predicts with; `robustvision_core.predict.load_run` finds it here."""

from __future__ import annotations

import pathlib

from robustvision_core.predict import Predictor, Preprocessing, read_about
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime

from pseudolabel_da.cli.classifier import NETWORK, new_classifier
from pseudolabel_da.cli.recipes import TrainConfig


def load_predictor(folder: str | pathlib.Path, which: str = "auto", device: str = "auto") -> Predictor:
    """The adapted classifier of a run folder; the data it was trained on is not needed.

    Args:
        folder: The run folder.
        which: `best`, `checkpoint`, or `auto` for best where there is one.
        device: auto, cpu, cuda or mps.
    """
    path, about = read_about(folder, which)
    config = read_config(folder, TrainConfig, "pseudolabel-da train")
    prepared = Preprocessing.from_plain(about["preprocessing"], str(path))
    network = new_classifier(config, prepared.channels, prepared.size, len(about["classes"])).network
    load_part(network, path, NETWORK)
    where = Runtime.from_env(device).device
    return Predictor(network.to(where), prepared, about["classes"], device=where)
