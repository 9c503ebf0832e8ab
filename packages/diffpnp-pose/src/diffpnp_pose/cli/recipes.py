"""What a training run is told, and its presets. Imports nothing heavy: help must answer at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.run.options import RunOptions

Loss = Literal["lh", "lm", "lp"]
Solver = Literal["exact", "bpnp", "bpnp-fast", "epnp"]
Network = Literal["hrnet", "higher_hrnet", "hourglass"]

SOLVERS: tuple[Solver, ...] = get_args(Solver)
NETWORK_SIZES: dict[Network, tuple[str, ...]] = {
    "hrnet": ("w48", "w32", "w18", "tiny", "micro"),
    "higher_hrnet": ("w48", "w32", "w18", "tiny", "micro"),
    "hourglass": ("paper", "tiny"),
}
"""What `--network-size` takes, by network."""


@dataclass(frozen=True)
class PoseOptions:
    """The second phase, in which the loss has a pose in it."""

    epochs: int = 14
    """Passes over the training set with `loss`, after those on heat-maps alone."""
    loss: Loss = "lm"
    """lh (heat-maps alone, as in the first phase), lm (heat-maps and pose) or lp (pose alone)."""
    solver: Solver = "exact"
    """Where poses and their gradient come from: exact (the minimum of the reprojection error and its own gradient);
    the published forms bpnp (the same minimum, residuals weighted with depth in the gradient) and bpnp-fast (besides,
    without second derivatives); epnp (EPnP's pose, and autograd through it)."""
    beta: float | Literal["auto"] = 1e-5
    """Weight of the pose in lm, per squared pixel; auto lets both terms pull equally on the first batch."""
    lr: float = 1e-3
    """Learning rate of this phase, whatever its loss; 0 keeps --lr."""
    clip_norm: float = 0.0
    """Largest norm of the gradient of a loss with a pose in it; 0 is none. Heat-maps alone are never clipped."""

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise UserError(f"pose.{name} must be 0 or more, got {getattr(self, name)}")
        if self.beta != "auto" and not self.beta > 0:
            raise UserError(f"beta must be positive or auto, got {self.beta}")


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a network that finds keypoints in images of one object, and poses through them."""

    preset: str = "quick"
    """Which defaults the other options change: quick (about 3 minutes of two cores), smoke (tries the code), paper."""
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
    """Images of the validation set, which chooses the best epoch; 0 takes the last. The test set never chooses."""
    test_size: int = 128
    """Images to test on; 0 takes all, of drones 128."""
    network: Network = "hrnet"
    """Network."""
    network_size: str = "tiny"
    """w48 (the paper's), w32, w18, tiny or micro of HRNet and HigherHRNet; paper or tiny of Hourglass."""
    init: str = ""
    """Start from the weights of this checkpoint."""
    sigma: float = 0.035
    """Standard deviation of target heat-maps, as a share of the image's width in x and height in y."""
    border_corrected: bool = False
    """Give targets that the border cuts off their keypoint as centre of mass."""
    epochs: int = 30
    """Passes over the training set on heat-maps alone."""
    batch_size: int = 8
    """Images a step, all processes together."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    pose: PoseOptions = field(default_factory=PoseOptions)

    PRESETS: ClassVar[dict[str, TrainConfig]]
    MAY_GROW: ClassVar[frozenset[str]] = frozenset({"pose.epochs"})  # more of the first phase would move the second
    ALIASES: ClassVar[dict[str, str]] = {name: f"pose.{name}" for name in ("loss", "solver", "beta", "clip_norm")}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data == "synthetic":
            object.__setattr__(self, "data", "drones")
        if self.network_size not in NETWORK_SIZES[self.network]:
            raise unknown_name(f"size of {self.network}", self.network_size, NETWORK_SIZES[self.network])
        self.at_least(1, "batch_size")
        self.at_least(0, "epochs", "train_size", "val_size", "test_size")
        self.positive("lr", "sigma")
        if self.network == "higher_hrnet" and self.pose.loss == "lp" and self.pose.epochs:
            raise UserError(
                "higher_hrnet cannot train on lp: poses come from its coarse maps in training, so that nothing would "
                "train its finer ones, which evaluation averages in; use --loss lm, or another network"
            )
        if self.epochs + self.pose.epochs < 1:
            raise UserError("epochs and pose.epochs are both 0: there is nothing to train")

    def with_pose(self, **changes: Any) -> TrainConfig:
        """This configuration with other options of the second phase."""
        return replace(self, pose=replace(self.pose, **changes))


_QUICK = TrainConfig()
TrainConfig.PRESETS = {
    "quick": _QUICK,
    "smoke": replace(
        _QUICK, preset="smoke", train_size=64, val_size=16, test_size=16, epochs=2, pose=PoseOptions(epochs=1)
    ),
    # the code published with the paper: UAVA at 320x240, Adam at 1e-4, no augmentation, the best of 44 epochs
    "paper": replace(
        _QUICK,
        preset="paper",
        data="uava",
        size="small",
        val_size=1000,
        test_size=0,
        network_size="w48",
        batch_size=24,
        lr=1e-4,
        pose=PoseOptions(lr=0.0, clip_norm=1e-4),
    ),
    "cpu": _QUICK,  # a former name
}
