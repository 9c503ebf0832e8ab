"""The verbs `predict` and `export`."""

from __future__ import annotations

import sys

from robustvision_core.predict import ExportOptions

from diffpnp_pose.cli.options import PredictConfig
from diffpnp_pose.cli.prediction.export import export_keypoints
from diffpnp_pose.cli.prediction.predictor import load_predictor
from diffpnp_pose.cli.prediction.video import write_video
from diffpnp_pose.cli.prediction.write import write_poses


def predict(config: PredictConfig) -> None:
    """Write the poses that a run finds in images, or in a video."""
    predictor = load_predictor(config.run, config.which, config.device)
    (write_video if config.video else write_poses)(predictor, config)


def export(config: ExportOptions) -> None:
    """Write a run's keypoint network in another form."""
    path = export_keypoints(load_predictor(config.run, config.which, "cpu"), config.out, config.format)
    sys.stdout.write(f"{path}: keypoints agree with the network's; images are prepared as preprocessing.json says\n")
