"""`diffpnp-pose evaluate`: a trained network on the test set."""

from __future__ import annotations

import pathlib
import sys

from robustvision_core.run.runtime import Runtime

from diffpnp_pose.cli.data import load
from diffpnp_pose.cli.inference import make_network, predict
from diffpnp_pose.cli.options import EvaluateConfig
from diffpnp_pose.cli.outputs import made
from diffpnp_pose.cli.recipes import Solver, TrainConfig
from diffpnp_pose.cli.scoring import draw, score, summarise


def evaluate(config: EvaluateConfig) -> None:
    """Print the eight metrics and write the pictures."""
    trained = config.trained(TrainConfig, "diffpnp-pose train", init="")
    pictures = made(config.out or pathlib.Path(config.run) / "plots")
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        test = load(trained, "test")
        network = make_network(trained, test).to(runtime.device)
        config.load_into(network)
        solver: Solver = config.solver or trained.pose.solver  # type: ignore[assignment]  # checked by the options
        found = predict(network, test, runtime, solver, config.decode, trained.certainty)
        sys.stdout.write(f"{summarise(score(test, found))}\n")
        paths = draw(test, found, network, runtime, pictures)
    sys.stdout.write("".join(f"{path}\n" for path in paths))
