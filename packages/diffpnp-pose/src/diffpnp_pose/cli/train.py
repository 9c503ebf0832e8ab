"""`diffpnp-pose train`: a keypoint network, on heat-maps first and then through the pose."""

from __future__ import annotations

import functools
import math
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from robustvision_core.data import PoseBatch, PoseBatches, PoseSet
from robustvision_core.data.batches.base import BatchOptions
from robustvision_core.run.folder import Run
from robustvision_core.run.loop import fit
from robustvision_core.run.runtime import Runtime, derive_seed
from torch import Tensor, nn

from diffpnp_pose.cli import plots
from diffpnp_pose.cli.crops.batches import CropBatches
from diffpnp_pose.cli.crops.crop_set import CropSet
from diffpnp_pose.cli.crops.scene import backgrounds
from diffpnp_pose.cli.data import MEAN, STD, load
from diffpnp_pose.cli.inference import find_poses, keypoints_of, make_network, predict
from diffpnp_pose.cli.prediction.about import describe_run
from diffpnp_pose.cli.recipes import TrainConfig
from diffpnp_pose.cli.scoring import EIGHT, draw, score, summarise
from diffpnp_pose.geometry.projection import project
from diffpnp_pose.heatmaps.decoding import spatial_softmax
from diffpnp_pose.heatmaps.targets import gaussian_targets
from diffpnp_pose.losses.heatmap import heatmap_loss
from diffpnp_pose.losses.mixture import MixtureLoss
from diffpnp_pose.losses.pose import pose_loss


class Step(nn.Module):
    """One forward pass and its loss, which changes from heat-maps to poses after the first phase.

    Args:
        network: Images (B, 3, H, W) to a list of logits, with `pose_maps`.
        config: Losses, solver and length of the first phase.
    """

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.mixture = MixtureLoss(config.pose.beta)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the loss of an epoch, numbered from 0."""
        self.posing = self.config.pose.loss != "lh" and epoch >= self.config.epochs

    def forward(self, batch: PoseBatch) -> dict[str, Tensor]:
        """The loss, its parts, and from the second phase on the share of items with a valid pose."""
        outputs: list[Tensor] = self.network(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            return self._losses(batch, [logits.float() for logits in outputs])

    def _losses(self, batch: PoseBatch, outputs: list[Tensor]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        if not (self.posing and self.config.pose.loss == "lp"):
            scales = [spatial_softmax(logits) for logits in outputs]
            losses = [heatmap_loss(maps, self._targets(batch, maps)) for maps in scales]
            values["heatmap"] = torch.stack(losses).mean()
        if not self.posing:
            return {"loss": values["heatmap"]} | values
        maps = spatial_softmax(self.network.pose_maps(outputs))  # pyright: ignore[reportCallIssue]  # a module's attribute
        return self._through_the_pose(batch, maps, values)

    def _through_the_pose(self, batch: PoseBatch, maps: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        points = keypoints_of(maps, batch.images)
        R, t, valid = find_poses(self.config.pose.solver, points, batch.keypoints_3d, batch.K)
        projected = project(batch.keypoints_3d, R, t, batch.K)
        values["valid"] = valid.float().mean()
        if self.config.pose.loss == "lp":
            return {"loss": pose_loss(points, projected, batch.keypoints_2d, valid)} | values
        targets = self._targets(batch, maps)
        mixed = self.mixture(maps, targets, projected, batch.keypoints_2d, valid)
        # the mixture has the heat-map loss of this scale: the mean over all scales takes its place
        return {"loss": mixed + values["heatmap"] - heatmap_loss(maps, targets)} | values

    def _targets(self, batch: PoseBatch, maps: Tensor) -> Tensor:
        height, width = batch.images.shape[-2:]
        return gaussian_targets(
            batch.keypoints_2d,
            (maps.shape[-1], maps.shape[-2]),
            (width, height),
            std=self.config.sigma,
            grid="half_pixel",
            border_corrected=self.config.border_corrected,
        )


def train(config: TrainConfig) -> pathlib.Path:
    """Train as `config` says, test the last and the selected epoch, and return the run folder."""
    with config.session(f"diffpnp-pose-{config.pose.loss}") as (runtime, run):
        training, held = load(config, "train"), load(config, "val") if config.val_size else None
        run.about = describe_run(config, training)
        step = Step(make_network(config, training), config)
        records = fit_on(config, training, held, runtime, run, step)
        if runtime.is_main:
            finish(config, runtime, run, step, records)
        return run.folder


def fit_on(
    config: TrainConfig,
    training: PoseSet,
    held: PoseSet | None,
    runtime: Runtime,
    run: Run | None,
    step: Step,
    watch: Callable[[], Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Train `step` through both phases; records of the epochs, with the values of `watch`, which choose nothing."""
    batches = make_batches(config, training, runtime)
    wrapped = runtime.wrap(step)

    def validate() -> dict[str, float]:
        assert held is not None
        values = score(held, predict(step.network, held, runtime, config.pose.solver, sigma=config.certainty))
        return {f"val_{name.lower()}": values[name] for name in (*EIGHT, "valid")} | (dict(watch()) if watch else {})

    optimizer = torch.optim.Adam(step.parameters(), config.lr)
    if config.pose.clip_norm:
        clip_where_posing(optimizer, step, config.pose.clip_norm)
    return fit(
        wrapped,
        optimizer,
        batches,
        epochs=config.epochs + config.pose.epochs,
        runtime=runtime,
        run=run,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, functools.partial(rate_at, config)),
        validate=None if held is None else validate,
        monitor=None if held is None else "val_npe",
        higher_is_better=False,
        on_epoch=step.set_epoch,
        progress=config.progress,
    )


def rate_at(config: TrainConfig, epoch: int) -> float:
    """Share of `config.lr` in an epoch, numbered from 0."""
    if epoch >= config.epochs:
        return (config.pose.lr or config.lr) / config.lr
    return config.lr_end + (1 - config.lr_end) * (1 + math.cos(math.pi * epoch / config.epochs)) / 2


def clip_where_posing(optimizer: torch.optim.Optimizer, step: Step, largest: float) -> None:
    """Bound the norm of the gradient in every step of the optimizer whose loss has a pose in it."""

    def clip(*_: Any) -> None:
        if step.posing:
            nn.utils.clip_grad_norm_(step.parameters(), largest)

    optimizer.register_step_pre_hook(clip)


def make_batches(config: TrainConfig, poses: PoseSet, runtime: Runtime) -> PoseBatches:
    """Shuffled training batches; of crops, each time otherwise."""
    options: BatchOptions = {
        "shuffle": True,
        "seed": derive_seed(config.seed, "order"),
        "rank": runtime.rank,
        "world_size": runtime.world_size,
        "mean": torch.tensor(MEAN),
        "std": torch.tensor(STD),
        "device": runtime.device,
    }
    if not isinstance(poses, CropSet):
        return PoseBatches(poses, config.batch_size, **options)
    bank = backgrounds(config.mesh.background, (poses.shape[2], poses.shape[1]), config.seed, 0)
    return CropBatches(poses, bank, config.crop, config.batch_size, **options)


def finish(config: TrainConfig, runtime: Runtime, run: Run, step: Step, records: list[dict[str, Any]]) -> None:
    """Test the last and the selected epoch, and write summary and pictures."""
    test, network = load(config, "test"), step.network
    found = predict(network, test, runtime, config.pose.solver, sigma=config.certainty)
    summary: dict[str, Any] = {"loss": config.pose.loss, "solver": config.pose.solver, "seed": config.seed}
    summary["final"] = score(test, found)
    if (epoch := run.load_best(network)) is not None:
        found = predict(network, test, runtime, config.pose.solver, sigma=config.certainty)
        summary["selected"] = score(test, found) | {"epoch": epoch}
    run.write_summary(summary)
    plots.training(records, config.epochs, run.plot_path("training"))
    draw(test, found, network, runtime, run.folder / "plots")
    which = f"epoch {summary['selected']['epoch']}" if "selected" in summary else "last epoch"
    text = summarise(summary.get("selected", summary["final"]))
    sys.stdout.write(f"test set, {which}\n{text}\nrun folder {run.folder}\n")
