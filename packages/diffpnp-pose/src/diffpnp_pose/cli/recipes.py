"""Configurations of training: one that tries the code, one for a processor, and the paper's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.run.options import RunOptions

from diffpnp_pose.networks import HOURGLASS_SIZES, HRNET_SIZES

NETWORK_SIZES = {"hrnet": HRNET_SIZES, "higher_hrnet": HRNET_SIZES, "hourglass": HOURGLASS_SIZES}
"""What `--network-size` takes, by network."""

Loss = Literal["lh", "lm", "lp"]
Solver = Literal["exact", "bpnp", "bpnp-fast", "epnp"]


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a network that finds keypoints in images of one object, and poses through them."""

    preset: str = "cpu"
    """Which defaults the other options change: cpu (about 3 minutes of two cores), smoke (tries the code), paper."""
    data: str = "drones"
    """Images with poses: drones (rendered here; synthetic is another name), uava (the paper's), lmo (real photos: the
    first 3/5 of LM-O's test images train, 1/5 validates, 1/5 tests), or bop:PATH."""
    drone: Literal["m2ed", "tello"] = "m2ed"
    """Of drones and uava: m2ed is 0.6 m across, tello a quarter of that."""
    object: int = 1
    """Number of the object, of lmo and bop."""
    size: str = "tiny"
    """Images are rendered at, or resized to, tiny (128x96), small (320x240) or WxH."""
    distance: tuple[float, float] = (0.7, 1.5)
    """Nearest and farthest, in metres, of drones."""
    train_size: int = 0
    """Images to train on; 0 takes all, of drones 512."""
    val_size: int = 128
    """Images that choose the best epoch; 0 takes the last epoch. The test set never chooses."""
    test_size: int = 128
    """Images to test on; 0 takes all, of drones 128."""
    network: Literal["hrnet", "higher_hrnet", "hourglass"] = "hrnet"
    """Network."""
    network_size: str = "tiny"
    """w48 (the paper's), w32, w18, tiny or micro of HRNet and HigherHRNet; paper or tiny of Hourglass."""
    init: str = ""
    """Start from the weights of this checkpoint."""
    loss: Loss = "lm"
    """Of the second phase: lh (heat-maps alone, as in the first), lm (heat-maps and pose) or lp (pose alone)."""
    solver: Solver = "exact"
    """Where poses and their gradient come from: exact (the minimum of the reprojection error and its own gradient);
    the published forms bpnp (the same minimum, residuals weighted with depth in the gradient) and bpnp-fast (besides,
    without second derivatives); epnp (EPnP's pose, and autograd through it)."""
    beta: float | Literal["auto"] = 1e-5
    """Weight of the pose in lm, per squared pixel; auto lets both terms pull equally on the first batch."""
    sigma: float = 0.035
    """Standard deviation of target heat-maps, as a share of the image's width in x and height in y."""
    border_corrected: bool = False
    """Give targets that the border cuts off their keypoint as centre of mass."""
    epochs: int = 30
    """Passes over the training set on heat-maps alone."""
    pose_epochs: int = 14
    """Passes with `loss` after that."""
    batch_size: int = 8
    """Images a step, all processes together."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    pose_lr: float = 1e-3
    """Learning rate of the second phase, whatever its loss; 0 keeps lr."""
    clip_norm: float = 0.0
    """Largest norm of the gradient of a loss with a pose in it; 0 is none. Heat-maps alone are never clipped."""

    PRESETS: ClassVar[dict[str, TrainConfig]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data == "synthetic":
            object.__setattr__(self, "data", "drones")
        if self.network_size not in NETWORK_SIZES[self.network]:
            raise unknown_name(f"size of {self.network}", self.network_size, NETWORK_SIZES[self.network])
        self.at_least(1, "batch_size")
        self.at_least(0, "epochs", "pose_epochs", "train_size", "val_size", "test_size", "pose_lr", "clip_norm")
        self.positive("lr", "sigma")
        if self.beta != "auto" and not self.beta > 0:
            raise UserError(f"beta must be positive or auto, got {self.beta}")
        if self.network == "higher_hrnet" and self.loss == "lp" and self.pose_epochs:
            raise UserError(
                "higher_hrnet cannot train on lp: poses come from its coarse maps in training, so that nothing would "
                "train its finer ones, which evaluation averages in; use --loss lm, or another network"
            )
        if self.epochs + self.pose_epochs < 1:
            raise UserError("epochs and pose_epochs are both 0: there is nothing to train")


TrainConfig.PRESETS = {
    "cpu": TrainConfig(),
    "smoke": TrainConfig(preset="smoke", train_size=64, val_size=16, test_size=16, epochs=2, pose_epochs=1),
    # the code published with the paper: UAVA at 320x240, Adam at 1e-4, no augmentation, the best of 44 epochs
    "paper": replace(
        TrainConfig(),
        preset="paper",
        data="uava",
        size="small",
        val_size=1000,
        test_size=0,
        network_size="w48",
        batch_size=24,
        lr=1e-4,
        pose_lr=0.0,
        clip_norm=1e-4,
    ),
}
