"""`diffpnp-pose evaluate`: a trained network on the test set."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from robustvision_core.data import PoseBatches, PoseSet
from robustvision_core.errors import unknown_name
from robustvision_core.run.folder import load_part, read_config
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

from diffpnp_pose.cli import plots
from diffpnp_pose.cli.data import MEAN, STD, load
from diffpnp_pose.cli.outputs import made
from diffpnp_pose.cli.recipes import Solver, TrainConfig
from diffpnp_pose.cli.solvers import find_poses
from diffpnp_pose.heatmaps import Mode, decode, spatial_softmax
from diffpnp_pose.metrics import PoseMetrics

EIGHT = ("NPE", "AD", "ACC2", "ACC5", "ADD2", "ADD5", "Proj2", "Proj5")
"""The paper's metrics."""

_UNITS = {"NPE": "", "AD": " rad"}  # the others are percentages
_BATCH = 64
_SHOWN = 8  # items in pictures
_VERTICES = 1 << 22  # moved at once by the metrics
_BINS = 6  # of distance


@dataclass(frozen=True)
class EvaluateConfig:
    """Test a trained network on the test set of its data, and draw what it finds."""

    run: str
    """Run folder that training wrote."""
    which: Literal["best", "checkpoint"] = "best"
    """best (the epoch that validation selected) or checkpoint (the last one)."""
    solver: str = ""
    """exact, bpnp, bpnp-fast or epnp; empty takes that of training."""
    decode: Mode = "centre_of_mass"
    """How keypoints are read from heat-maps."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: str = ""
    """Folder for the pictures; empty takes plots/ of the run."""


class Predictions(NamedTuple):
    """What a network finds in N images, on the CPU.

    Attributes:
        points: (N, P, 2) pixels.
        R: (N, 3, 3) rotations; the identity where no pose is valid.
        t: (N, 3) metres; 0 where no pose is valid, so that the item counts as missed, with a position error of 1.
        valid: (N,) bool.
    """

    points: Tensor
    R: Tensor
    t: Tensor
    valid: Tensor


def evaluate(config: EvaluateConfig) -> None:
    """Print the eight metrics and write the pictures."""
    from diffpnp_pose.cli.train import make_network

    if config.solver and config.solver not in get_args(Solver):
        raise unknown_name("solver", config.solver, get_args(Solver))
    stored = read_config(config.run, TrainConfig, "diffpnp-pose train")
    trained = replace(stored, data_root=config.data_root, device=config.device, init="", resume=False)
    folder = pathlib.Path(config.run)
    pictures = made(config.out or folder / "plots")
    with Runtime.session(config.device, trained.precision, trained.seed) as runtime:
        test = load(trained, "test")
        network = make_network(trained, test).to(runtime.device)
        load_part(network, folder / f"{config.which}.pt")
        solver: Solver = config.solver or trained.solver  # type: ignore[assignment]  # checked above
        found = predict(network, test, runtime, solver, config.decode)
        sys.stdout.write(f"{summarise(score(test, found))}\n")
        paths = draw(test, found, network, runtime, pictures)
    sys.stdout.write("".join(f"{path}\n" for path in paths))


def keypoints_of(maps: Tensor, images: Tensor, mode: Mode = "centre_of_mass") -> Tensor:
    """Keypoints (B, P, 2) in pixels of the images (B, 3, H, W), from maps (B, P, h, w) that sum to one."""
    return decode(maps, (images.shape[-1], images.shape[-2]), mode=mode, grid="half_pixel")


def heatmaps_of(network: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    """Maps (B, P, h, w), float32, each summing to one, that poses are read from."""
    with runtime.autocast():
        logits = network.pose_maps(network(images))  # pyright: ignore[reportCallIssue]  # a module's attribute
    return spatial_softmax(logits.float())


@torch.no_grad()
def predict(
    network: nn.Module, poses: PoseSet, runtime: Runtime, solver: Solver, mode: Mode = "centre_of_mass"
) -> Predictions:
    """Keypoints and poses of every item, in evaluation mode; the network's mode is restored."""
    training = network.training
    network.eval()
    try:
        batches = ordered_batches(poses, runtime).epoch(0)
        parts = [keypoints_of(heatmaps_of(network, b.images, runtime), b.images, mode) for b in batches]
    finally:
        network.train(training)
    points = torch.cat(parts)
    K = poses.K.to(points.device)
    R, t, valid = find_poses(solver, points, poses.keypoints_3d.to(points.device), K)
    R = torch.where(valid[:, None, None], R, torch.eye(3, device=R.device))
    t = torch.where(valid[:, None], t, 0.0)
    return Predictions(points.cpu(), R.cpu(), t.cpu(), valid.cpu())


def ordered_batches(poses: PoseSet, runtime: Runtime) -> PoseBatches:
    """All items in order."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return PoseBatches(poses, _BATCH, mean=mean, std=std, device=runtime.device)


def score(poses: PoseSet, found: Predictions) -> dict[str, float]:
    """The metrics of `PoseMetrics` over the items, in their order, and the percentage of valid poses."""
    thing = poses.objects[0]
    vertices = (thing.keypoints if thing.mesh is None else thing.mesh.vertices).cpu()
    metrics = PoseMetrics(vertices, diagonal=thing.diameter)
    truth = poses.R.cpu(), poses.t.cpu(), poses.K.cpu()
    for rows in torch.arange(len(poses)).split(max(1, _VERTICES // len(vertices))):
        metrics.update(found.R[rows], found.t[rows], *(value[rows] for value in truth))
    return metrics.compute() | {"valid": 100 * float(found.valid.float().mean())}


def by_distance(poses: PoseSet, found: Predictions, bins: int = _BINS) -> list[tuple[float, dict[str, float]]]:
    """Mean distance in metres and metrics of equally many items each, from near to far."""
    distance = poses.t.cpu().norm(dim=1)
    parts = distance.argsort().chunk(min(bins, len(poses)))
    return [
        (float(distance[rows].mean()), score(poses.take(rows), Predictions(*(value[rows] for value in found))))
        for rows in parts
    ]


def summarise(values: dict[str, float]) -> str:
    """A line for each of the eight metrics, and one for the items."""
    lines = [f"{name:<6}{values[name]:>9.4f}{unit}" for name, unit in _UNITS.items()]
    lines += [f"{name:<6}{values[name]:>9.2f} %" for name in EIGHT if name not in _UNITS]
    return "\n".join([*lines, f"{values['samples']:.0f} images, {values['valid']:.1f} % with a valid pose"])


@torch.no_grad()
def draw(
    poses: PoseSet, found: Predictions, network: nn.Module, runtime: Runtime, folder: pathlib.Path
) -> list[pathlib.Path]:
    """Write heat-maps and meshes over some images, and accuracy against distance; the paths of the pictures."""
    rows = torch.linspace(0, len(poses) - 1, min(_SHOWN, len(poses))).round().long()
    some, seen = poses.take(rows), Predictions(*(value[rows] for value in found))
    network.eval()
    batch = next(ordered_batches(some, runtime).epoch(0))
    maps = heatmaps_of(network, batch.images, runtime).cpu()
    paths = [folder / f"{name}.png" for name in ("heatmaps", "poses", "distance")]
    plots.heatmaps(some.to("cpu"), maps, seen.points, paths[0])
    plots.poses(some.to("cpu"), seen.R, seen.t, seen.valid, paths[1])
    plots.distance(by_distance(poses, found), paths[2])
    return paths
