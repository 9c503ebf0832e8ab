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
class CropOptions:
    """Crops around the object instead of whole images; the camera matrix follows. Images of mesh: are always crops."""

    enabled: bool = False
    """Crop the images of all other sets too."""
    margin: float = 1.4
    """How much larger than the object's box a crop is."""
    boxes: str = ""
    """A detector's boxes for testing, CSV (file, left, top, right, bottom) or BOP's JSON; empty takes those of the
    data."""
    turn: float = 30.0
    """In training, largest turn in the image, degrees, either way."""
    zoom: float = 1.2
    """In training, largest scale; the smallest is one over it."""
    shift: float = 0.08
    """In training, largest shift, as a share of the crop."""
    hide_share: float = 0.5
    """In training, share of the crops that have something before the object."""
    hide: float = 0.5
    """Largest share of such a crop that is hidden."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("margin", 1, 10), ("turn", 0, 180), ("zoom", 1, 4), ("shift", 0, 0.5), ("hide_share", 0, 1), ("hide", 0, 1)
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise UserError(f"crop.{name} must be within {least} and {most}, got {getattr(self, name)}")


@dataclass(frozen=True)
class MeshOptions:
    """What is drawn of `--data mesh:PATH`, and the real images beside it."""

    unit: float = 0.0
    """Metres a unit of the file; 0 takes metres, and millimetres for meshes larger than 5."""
    keypoints: int = 12
    """Vertices that the network finds: each is the farthest from those before."""
    distance: tuple[float, float] = (0.0, 0.0)
    """Nearest and farthest, metres; 0 0 takes 2.5 to 8 diameters of the object."""
    elevation: tuple[float, float] = (-90.0, 90.0)
    """Lowest and highest view, degrees above the object's x-y plane; 0 90 sees what stands on a table."""
    roll: float = 180.0
    """Largest turn about the camera's axis, degrees, either way."""
    background: str = ""
    """A folder or archive of photos; empty draws textures."""
    real: str = ""
    """Real images to mix in: lmo (the first 3/5 of its photos), or bop:PATH."""
    real_share: float = 0.3
    """Their share of an epoch."""
    test: str = ""
    """Real images to test on: lmo (those that `real` has not taken), or bop:PATH; empty tests on drawn ones."""

    def __post_init__(self) -> None:
        if not 4 <= self.keypoints <= 256:
            raise UserError(f"mesh.keypoints must be within 4 and 256, got {self.keypoints}")
        if not -90 <= self.elevation[0] <= self.elevation[1] <= 90:
            raise UserError(f"mesh.elevation must be within -90 and 90, lower first, got {self.elevation}")
        if any(self.distance) and not 0 < self.distance[0] <= self.distance[1]:
            raise UserError(f"mesh.distance must be positive, nearer first, got {self.distance}")
        if not (0 <= self.roll <= 180 and 0 < self.real_share < 1 and self.unit >= 0):
            raise UserError("mesh.roll must be within 0 and 180, mesh.real_share between 0 and 1, mesh.unit 0 or more")


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a network that finds keypoints in images of one object, and poses through them."""

    preset: str = "quick"
    """Which defaults the other options change: quick (about 3 minutes of two cores), smoke (tries the code), paper, or
    mesh (crops drawn from a mesh, about half an hour of a core)."""
    data: str = "drones"
    """Images with poses: drones (rendered here; synthetic is another name), uava (the paper's), lmo (real photos: the
    first 3/5 of LM-O's test images train, 1/5 validates, 1/5 tests), bop:PATH, mesh:PATH (crops drawn from a PLY or
    OBJ file), coco:PATH (images with COCO keypoints; needs `points` and `camera`), or csv:PATH or parquet:PATH (a table
    of images with keypoints or poses; needs `points`)."""
    points: str = ""
    """Of coco, csv and parquet: a CSV file with the keypoints of the object (columns x, y, z, metres), in the order of
    the annotations; of mesh: keypoints in place of vertices, in the unit of the mesh."""
    camera: str = ""
    """Of coco, and of tables without fx, fy, cx and cy: the camera.json of `calibrate`, whose images they are."""
    drone: Literal["m2ed", "tello"] = "m2ed"
    """Of drones and uava: m2ed is 0.6 m across, tello a quarter of that."""
    object: int = 1
    """Number of the object, of lmo and bop."""
    size: str = "tiny"
    """Images are rendered at, or resized to, tiny (128x96), small (320x240) or WxH."""
    distance: tuple[float, float] = (0.7, 1.5)
    """Nearest and farthest, in metres, of drones."""
    train_size: int = 0
    """Images to train on; 0 takes all, of drones 512, of mesh 4096."""
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
    weighted: bool = False
    """Outside training, let keypoints with narrow heat-maps count for more in the pose than those with wide ones."""
    epochs: int = 30
    """Passes over the training set on heat-maps alone."""
    batch_size: int = 8
    """Images a step, all processes together."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    lr_end: float = 1.0
    """Share of it that it falls to, along a cosine over the epochs on heat-maps; 1 keeps it."""
    pose: PoseOptions = field(default_factory=PoseOptions)
    crop: CropOptions = field(default_factory=CropOptions)
    mesh: MeshOptions = field(default_factory=MeshOptions)

    PRESETS: ClassVar[dict[str, TrainConfig]]
    MAY_GROW: ClassVar[frozenset[str]] = frozenset({"pose.epochs"})  # more of the first phase would move the second
    ALIASES: ClassVar[dict[str, str]] = {"crop.on": "crop.enabled", "crop_on": "crop.enabled"} | {
        name: f"pose.{name}" for name in ("loss", "solver", "beta", "clip_norm")
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.startswith("mesh:") and not self.crop.enabled:
            object.__setattr__(self, "crop", replace(self.crop, enabled=True))
        if self.data.startswith("coco:") and not (self.points and self.camera):
            raise UserError("--data coco:PATH needs --points, a table of the object's keypoints, and --camera")
        if self.data.startswith(("csv:", "parquet:")) and not self.points:
            raise UserError(f"--data {self.data} needs --points, a table of the object's keypoints")
        if self.data == "synthetic":
            object.__setattr__(self, "data", "drones")
        if self.network_size not in NETWORK_SIZES[self.network]:
            raise unknown_name(f"size of {self.network}", self.network_size, NETWORK_SIZES[self.network])
        self.at_least(1, "batch_size")
        self.at_least(0, "epochs", "train_size", "val_size", "test_size")
        self.positive("lr", "sigma")
        if not 0 < self.lr_end <= 1:
            raise UserError(f"lr_end must be above 0 and at most 1, got {self.lr_end}")
        if self.network == "higher_hrnet" and self.pose.loss == "lp" and self.pose.epochs:
            raise UserError(
                "higher_hrnet cannot train on lp: poses come from its coarse maps in training, so that nothing would "
                "train its finer ones, which evaluation averages in; use --loss lm, or another network"
            )
        if self.epochs + self.pose.epochs < 1:
            raise UserError("epochs and pose.epochs are both 0: there is nothing to train")

    @property
    def certainty(self) -> float:
        """What `predict` weights keypoints by: the deviation of the targets, or 0 for none."""
        return self.sigma if self.weighted else 0.0

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
    "mesh": replace(
        _QUICK,
        preset="mesh",
        size="128x128",
        val_size=256,
        test_size=0,
        train_size=6144,
        batch_size=16,
        epochs=22,
        lr_end=0.03,
        pose=PoseOptions(epochs=5, lr=3e-4),
        crop=CropOptions(enabled=True),
    ),
    "cpu": _QUICK,  # a former name
}
