"""A keypoint network and its poses: what training, evaluation and prediction share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from robustvision_core.data import PoseBatches, PoseSet
from robustvision_core.run.folder import load_part
from robustvision_core.run.runtime import Runtime, channels_last
from torch import Tensor, nn

from diffpnp_pose.cli.data import MEAN, STD
from diffpnp_pose.cli.recipes import Solver, TrainConfig
from diffpnp_pose.heatmaps.decoding import Mode, decode, spatial_softmax
from diffpnp_pose.heatmaps.grid import cell_positions
from diffpnp_pose.networks import higher_hrnet, hourglass, hrnet
from diffpnp_pose.pnp import solve_pnp
from diffpnp_pose.pnp.epnp_backends import epnp

_BATCH = 64


class Poses(NamedTuple):
    """Solved poses.

    Attributes:
        R: (B, 3, 3) rotations, object to camera; differentiable.
        t: (B, 3) translations, metres; differentiable.
        valid: (B,) bool; where it is False the gradient is zero.
    """

    R: Tensor
    t: Tensor
    valid: Tensor


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


def make_network(config: TrainConfig, poses: PoseSet) -> nn.Module:
    """The network of `config`, channels last, with the weights of `init` if one is named."""
    network = new_network(config, len(poses.objects[0].keypoints))
    if config.init:
        load_part(network, config.init)
    return network


def new_network(config: TrainConfig, keypoints: int) -> nn.Module:
    """The network of `config` with fresh weights, channels last."""
    make = {"hrnet": hrnet, "higher_hrnet": higher_hrnet, "hourglass": hourglass}[config.network]
    network = make(keypoints, config.network_size)
    channels_last(network)
    return network


def find_poses(solver: Solver, points_2d: Tensor, points_3d: Tensor, K: Tensor, weights: Tensor | None = None) -> Poses:
    """Poses of image points.

    Args:
        solver: `exact`, `bpnp`, `bpnp-fast` or `epnp`; the first three agree in value and differ in gradient.
        points_2d: (B, P, 2) pixels.
        points_3d: (B, P, 3) metres.
        K: (B, 3, 3) intrinsics, pixels.
        weights: (B, P), 0 or more; None is 1.

    Returns:
        The poses.
    """
    if solver == "epnp":
        found = epnp(points_2d, points_3d, K, weights=weights)
        return Poses(found.R, found.t, found.valid)
    result = solve_pnp(
        points_2d,
        points_3d,
        K,
        weights=weights,
        backward="gauss_newton" if solver == "bpnp-fast" else "exact",
        constraint="reprojection" if solver == "exact" else "bpnp",
    )
    return Poses(result.R, result.t, result.valid)


def keypoints_of(maps: Tensor, images: Tensor, mode: Mode = "centre_of_mass") -> Tensor:
    """Keypoints (B, P, 2) in pixels of the images (B, 3, H, W), from maps (B, P, h, w) that sum to one."""
    return decode(maps, (images.shape[-1], images.shape[-2]), mode=mode, grid="half_pixel")


def certainty(maps: Tensor, sigma: float) -> Tensor:
    """(B, P) in (0, 1]: 1 where a map (B, P, h, w) is as narrow as its target, less the wider it is.

    It is `1 / (1 + (v - v0) / v0)` with the variance `v` of the map and `v0` of the target, where `v` is larger.

    Args:
        maps: Each summing to one.
        sigma: Standard deviation of targets, as a share of the image's sides.
    """
    unit = (1, 1)
    centre = decode(maps, unit, grid="half_pixel")
    across, down = (cell_positions(cells, 1, "half_pixel", maps) for cells in (maps.shape[-1], maps.shape[-2]))
    square = maps.sum(-2) @ across.square() + maps.sum(-1) @ down.square()
    variance = square - centre.square().sum(-1)
    return 2 * sigma**2 / variance.clamp_min(2 * sigma**2)


def heatmaps_of(network: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    """Maps (B, P, h, w), float32, each summing to one, that poses are read from."""
    with runtime.autocast():
        logits = network.pose_maps(network(images))  # pyright: ignore[reportCallIssue]  # a module's attribute
    return spatial_softmax(logits.float())


@torch.no_grad()
def predict(
    network: nn.Module,
    poses: PoseSet,
    runtime: Runtime,
    solver: Solver,
    mode: Mode = "centre_of_mass",
    sigma: float = 0.0,
) -> Predictions:
    """Keypoints and poses of every item, in evaluation mode; the network's mode is restored.

    Args:
        network: Images to a list of logits, with `pose_maps`.
        poses: The items.
        runtime: Where it runs.
        solver: Where poses come from.
        mode: How keypoints are read.
        sigma: Of the targets, where the poses are to weight keypoints by their `certainty`; 0 weights all alike.
    """
    training = network.training
    network.eval()
    try:
        batches = ordered_batches(poses, runtime).epoch(0)
        parts, sure = [], []
        for batch in batches:
            maps = heatmaps_of(network, batch.images, runtime)
            parts.append(keypoints_of(maps, batch.images, mode))
            sure.append(certainty(maps, sigma) if sigma else maps.new_ones(maps.shape[:2]))
    finally:
        network.train(training)
    points, weights = torch.cat(parts), torch.cat(sure) if sigma else None
    K = poses.K.to(points.device)
    R, t, valid = find_poses(solver, points, poses.keypoints_3d.to(points.device), K, weights)
    R = torch.where(valid[:, None, None], R, torch.eye(3, device=R.device))
    t = torch.where(valid[:, None], t, 0.0)
    return Predictions(points.cpu(), R.cpu(), t.cpu(), valid.cpu())


def ordered_batches(poses: PoseSet, runtime: Runtime) -> PoseBatches:
    """All items in order."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return PoseBatches(poses, _BATCH, mean=mean, std=std, device=runtime.device)
