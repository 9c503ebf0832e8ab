"""Configurations of training: small ones for a processor, and the paper's by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.run.options import RunOptions

from flowaug.networks import NETWORKS

AUGMENTERS = ("flow", "augerino", "instaaug", "instaaug-lrp", "pstn", "randaugment", "trivialaugment", "none")
"""What `--augmenter` takes."""

FIXED = ("randaugment", "trivialaugment", "none")
"""The augmenters that learn nothing; predictions see the images as they are."""


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a classifier together with a distribution of augmentations for every image."""

    preset: str = "quick"
    """Which defaults the other options change: see the README for the list."""
    data: str = "sprites"
    """Data set: sprites, digits, mnist, fashion-mnist, mnist-01569, rot-mnist-lt, cifar-10, cifar-10-lt, cifar-100,
    tiny-imagenet, npz:PATH, folder:PATH."""
    download: bool = False
    """Fetch missing data where that can be done."""
    degrees: float | None = None
    """Largest turn of every image, of sprites, mnist-01569 and rot-mnist-lt."""
    modes: int | None = None
    """Angles that a class of sprites is centred on."""
    rho: float | None = None
    """Size of the largest class over the smallest, of cifar-10-lt and rot-mnist-lt."""
    image_size: int | None = None
    """Side in pixels that sprites (16 or 32), digits, folders and sets padded with black are loaded at."""
    train_size: int = 0
    """So many samples of the training set, the first ones, or drawn by class where the set is sorted by class (folders,
    tiny-imagenet); 0 takes all that validation leaves. Sprites are drawn as many as are asked for."""
    val_size: int = 0
    """So many other samples of the training set, its last ones or drawn by class likewise, choose the best epoch; 0
    takes the last epoch. The test set never chooses."""
    augmenter: str = "flow"
    """flow, augerino, instaaug, instaaug-lrp, pstn, randaugment, trivialaugment or none."""
    space: Literal["affine", "crop"] = "affine"
    """Transforms: affine ones with the coordinates --dims, or crops (which instaaug-lrp needs)."""
    dims: tuple[str, ...] = ("tx", "ty", "rot", "scale", "stretch", "shear")
    """Of affine transforms: tx, ty, rot, scale, stretch, shear, or free entries of the generator, a11 to a22."""
    trans_scale: float = 0.1
    """Largest translation, in half sizes of the image."""
    linear_scale: float = 1.0
    """Largest scale, stretch, shear and free entries."""
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """What stands outside the image."""
    layers: int = 12
    """Coupling layers of the flow."""
    width: int = 64
    """Hidden units of each; the published code has 32."""
    components: int = 10
    """Of the mixture that the flow starts from."""
    base: Literal["mog", "uniform", "student_t"] = "mog"
    """What the flow starts from."""
    start_scale: float = 0.1
    """Initial size of the flow's samples."""
    spread: float = 0.2
    """Initial locations of the mixture are uniform in (-spread, spread)."""
    gradient: Literal["implicit", "straight_through"] = "implicit"
    """Of the mixture's weights; the published one is straight_through, which is biased."""
    alpha: float = 0.1
    """Price of a nat of the entropy of flow, instaaug and instaaug-lrp; where --controller moves it, its start."""
    controller: Literal["none", "band", "pid"] = "none"
    """Keep the entropy within --entropy by moving alpha: band (multiplicatively) or pid (published). The augmenters
    without alpha have nothing to move: augerino, pstn and those that learn nothing."""
    entropy: tuple[float, float] = (0.0, 4.0)
    """Least and largest entropy in nats that the controller aims for; d log 2 is the whole box."""
    alpha_limits: tuple[float, float] = (1e-4, 10.0)
    """Least and largest alpha of the controller."""
    penalty: float = 0.01
    """Weight of the rivals' own regularisers: Augerino's width and PSTN's divergence from its prior."""
    views: int = 4
    """Augmented views of each image in training."""
    test_views: int = 20
    """In prediction."""
    aggregate: Literal["ce_mean", "logit_mean", "prob_mean"] = "ce_mean"
    """The loss over views: their mean cross-entropy (the paper's), that of the mean logits (the published CIFAR code)
    or -log of the mean probability. pstn always has prob_mean, and instaaug-lrp ce_mean."""
    include_original: bool = False
    """Add the cross-entropy of the image as it is, and count it as one more view in prediction."""
    burn_in: int = 0
    """Epochs without augmentation first, fewer than --epochs: the classifier must know something before the augmenter
    asks it."""
    freeze_after: int = 0
    """Epochs after which the classifier learns no more; 0 for never."""
    network: str = "simple_conv8"
    """Classifier: simple_conv, simple_conv8, mlp, lenet, fixup_resnet8, layer13 or preact_resnet18."""
    epochs: int = 10
    """Passes over the training set."""
    batch_size: int = 128
    """Samples a step, all processes together."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Of the classifier; the augmenter always has Adam without weight decay."""
    lr: float = 1e-3
    """Learning rate of the classifier at the start."""
    lr_aug: float = 1e-3
    """Of the augmenter."""
    lr_end: float = 1.0
    """Share of its start that the learning rate falls to by a cosine; 1 keeps it."""
    lr_steps: tuple[tuple[float, float], ...] = ()
    """(share of the epochs, factor): from there on the rate is the factor times what it would have been."""
    schedule_aug: bool = True
    """Whether the augmenter's learning rate falls as well."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.0
    """Of the classifier."""

    PRESETS: ClassVar[dict[str, TrainConfig]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augmenter not in AUGMENTERS:
            raise unknown_name("augmenter", self.augmenter, AUGMENTERS)
        if self.network not in NETWORKS:
            raise unknown_name("network", self.network, NETWORKS)
        if self.augmenter == "instaaug-lrp" and self.space != "crop":
            raise UserError("instaaug-lrp chooses among crops: add --space crop")
        self.at_least(1, "epochs", "batch_size", "views", "test_views")
        self.at_least(0, "train_size", "val_size", "burn_in", "freeze_after", "alpha", "penalty", "weight_decay")
        self.positive("lr", "lr_aug", "lr_end")
        if self.learns and self.burn_in >= self.epochs:
            raise UserError(
                f"the augmenter would never train: burn_in {self.burn_in} must be below epochs {self.epochs}"
            )

    @property
    def learns(self) -> bool:
        """Whether the augmenter is learned."""
        return self.augmenter not in FIXED


_QUICK = TrainConfig(
    image_size=16,
    train_size=4000,
    dims=("tx", "ty", "rot"),
    layers=4,
    width=32,
    components=4,
    spread=0.5,
    alpha=0.2,
    views=2,
    include_original=True,
    burn_in=2,
    epochs=12,
    batch_size=64,
    lr=3e-3,
    lr_aug=3e-3,
    lr_end=0.1,
)
# the published toy runs, on our own sprites in place of Mario and Iggy
_TOY = TrainConfig(
    preset="sprites-45-paper",
    degrees=45,
    dims=("tx", "ty", "rot"),
    layers=4,
    base="uniform",
    controller="pid",
    entropy=(0.0, 4.0),
    alpha_limits=(1e-6, 0.5),
    alpha=0.5,
    include_original=True,
    network="simple_conv",
    burn_in=5,
    epochs=100,
    lr_end=0.1,
)
_LENET = TrainConfig(
    preset="mnist-paper",
    data="mnist",
    network="lenet",
    trans_scale=1.0,
    width=32,
    spread=0.5,
    alpha=0.01,
    views=20,
    burn_in=1,
    epochs=100,
    batch_size=256,
    lr=1e-3,
    lr_aug=1e-4,
    lr_steps=((0.2, 0.1), (0.4, 0.01), (0.6, 1e-3), (0.8, 1e-4)),
    schedule_aug=False,
)
_CIFAR = TrainConfig(
    preset="cifar10-paper",
    data="cifar-10",
    network="fixup_resnet8",
    width=32,
    views=20,
    burn_in=10,
    epochs=200,
    batch_size=256,
    optimizer="sgd",
    lr=0.1,
    lr_aug=1e-4,
    lr_steps=((0.4, 0.1), (0.8, 0.01)),
    schedule_aug=False,
    weight_decay=1e-4,
)
# fewer epochs, views and layers than published: minutes of a processor
_SHORT = replace(
    _LENET, preset="mnist", trans_scale=0.2, layers=4, views=4, epochs=10, lr=2e-3, lr_aug=2e-3, lr_steps=(), lr_end=0.1
)

TrainConfig.PRESETS = {
    "quick": _QUICK,
    "sprites-45": replace(_QUICK, preset="sprites-45", degrees=45),
    "sprites-90": replace(_QUICK, preset="sprites-90", degrees=90, alpha=0.1, epochs=14),
    "sprites-3": replace(
        _QUICK,
        preset="sprites-3",
        degrees=30,
        modes=3,
        components=12,
        spread=1.2,
        views=4,
        alpha=0.3,
        burn_in=5,
        freeze_after=5,
        epochs=14,
    ),
    # turns of every direction: a classifier that has seen fewer takes turns for as strange as skews
    "discovery": replace(
        _QUICK,
        preset="discovery",
        degrees=90,
        dims=("a12", "a21"),
        components=8,
        spread=0.9,
        network="mlp",
        views=4,
        alpha=0.03,
        burn_in=6,
        freeze_after=6,
        epochs=14,
        schedule_aug=False,
    ),
    "mnist-01569": replace(
        _SHORT,
        preset="mnist-01569",
        data="mnist-01569",
        dims=("rot",),
        network="simple_conv8",
        alpha=0.3,
        views=2,
        include_original=True,
        batch_size=32,
        lr=3e-3,
        lr_aug=3e-3,
        epochs=4,
    ),
    "mnist": _SHORT,
    "fashion-mnist": replace(_SHORT, preset="fashion-mnist", data="fashion-mnist", alpha=0.03),
    "rot-mnist-lt": replace(_SHORT, preset="rot-mnist-lt", data="rot-mnist-lt", network="simple_conv8", alpha=0.05),
    "cifar10": replace(_CIFAR, preset="cifar10", views=4, epochs=60, burn_in=3),
    "cifar10-lt": replace(
        _CIFAR, preset="cifar10-lt", data="cifar-10-lt", views=4, alpha=0.05, trans_scale=0.5, spread=0.5, epochs=60
    ),
    # Singhal et al. 2023, from the published scripts; the toy runs have the sprites drawn here
    "sprites-45-paper": _TOY,
    "sprites-90-paper": replace(
        _TOY, preset="sprites-90-paper", degrees=90, alpha_limits=(1e-3, 0.5), burn_in=1, epochs=250
    ),
    "sprites-3-paper": replace(
        _TOY,
        preset="sprites-3-paper",
        degrees=30,
        modes=3,
        base="mog",
        components=90,
        spread=0.7,
        controller="none",
        batch_size=256,
        burn_in=3,
        freeze_after=3,
        epochs=150,
    ),
    "discovery-paper": replace(
        _TOY,
        preset="discovery-paper",
        dims=("a12", "a21"),
        network="mlp",
        base="mog",
        layers=12,
        components=30,
        start_scale=0.05,
        spread=0.9,
        controller="none",
        alpha=0.002,
        batch_size=512,
        lr=3e-3,
        lr_aug=3e-3,
        burn_in=20,
        freeze_after=20,
        epochs=200,
    ),
    "mnist-01569-paper": replace(
        _TOY,
        preset="mnist-01569-paper",
        data="mnist-01569",
        degrees=None,
        image_size=32,
        start_scale=0.5,
        controller="none",
        alpha=0.3,
        batch_size=512,
        epochs=40,
    ),
    "mnist-paper": _LENET,
    "fashion-mnist-paper": replace(
        _LENET,
        preset="fashion-mnist-paper",
        data="fashion-mnist",
        trans_scale=0.5,
        alpha=0.03,
        burn_in=10,
        epochs=200,
        lr=0.03,
        lr_aug=1e-3,
        lr_steps=((0.4, 0.05), (0.8, 0.0025)),
    ),
    "cifar10-paper": _CIFAR,
    "cifar10-lt-paper": replace(
        _CIFAR,
        preset="cifar10-lt-paper",
        data="cifar-10-lt",
        alpha=0.05,
        trans_scale=0.5,
        spread=0.5,
        epochs=100,
        lr_steps=((0.8, 0.05),),
    ),
    "layer13-paper": replace(_CIFAR, preset="layer13-paper", network="layer13", views=5, batch_size=100),
    # InstaAug's schedule; the code of the paper's own row is not published
    "tiny-imagenet": TrainConfig(
        preset="tiny-imagenet",
        data="tiny-imagenet",
        network="preact_resnet18",
        space="crop",
        padding="border",
        alpha=0.2,
        controller="band",
        entropy=(1.0, 2.0),
        burn_in=10,
        epochs=160,
        batch_size=100,
        optimizer="sgd",
        lr=0.2,
        lr_aug=1e-4,
        lr_end=0.01,
        schedule_aug=False,
        weight_decay=1e-4,
    ),
}
