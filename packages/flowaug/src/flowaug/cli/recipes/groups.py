"""The parts of a training configuration, each a titled group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robustvision_core.run.options import Checks


@dataclass(frozen=True)
class ImageOptions(Checks):
    """Which images of the data set, and how they are made. What is left open is the preset's, where the data set is the
    preset's own, else the data set's."""

    degrees: float | None = None
    """Largest rotation of every image, of sprites, mnist-01569 and rot-mnist-lt."""
    modes: int | None = None
    """Angles that a class of sprites is centred on."""
    rho: float | None = None
    """Size of the largest class over the smallest, of cifar-10-lt and rot-mnist-lt."""
    size: int | None = None
    """Side in pixels that sprites (16 or 32), digits, folders and sets padded with black are loaded at."""
    train_size: int | None = None
    """So many samples of the training set, the first ones, or drawn by class where the set is sorted by class (folders,
    tiny-imagenet); 0 takes all that validation leaves. Sprites are drawn as many as are asked for."""
    val_size: int | None = None
    """So many other samples of the training set, its last ones or drawn by class likewise, choose the best epoch; 0
    takes the last epoch. The test set never chooses."""

    def __post_init__(self) -> None:
        self.at_least(0, *(name for name in ("train_size", "val_size") if getattr(self, name) is not None))


@dataclass(frozen=True)
class SpaceOptions(Checks):
    """The transforms that are learned."""

    kind: Literal["affine", "crop"] = "affine"
    """Affine transforms with the coordinates of --space.dims, or crops (which instaaug-lrp needs)."""
    dims: tuple[str, ...] = ("tx", "ty", "rot", "scale", "stretch", "shear")
    """Of affine transforms: tx, ty, rot, scale, stretch, shear, or free entries of the generator, a11 to a22."""
    trans_scale: float = 0.1
    """Largest translation, in half sizes of the image."""
    linear_scale: float = 1.0
    """Largest scale, stretch, shear and free entries."""
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """What stands outside the image."""


@dataclass(frozen=True)
class FlowOptions:
    """The conditional flow of --augmenter flow."""

    layers: int = 12
    """Coupling layers."""
    width: int = 64
    """Hidden units of each; the published code has 32."""
    components: int = 10
    """Of the mixture that the flow starts from."""
    base: Literal["mog", "uniform", "student_t"] = "mog"
    """What the flow starts from: a mixture of Gaussians, a uniform or a Student's t distribution."""
    start_scale: float = 0.1
    """Initial size of the flow's samples."""
    spread: float = 0.2
    """Initial locations of the mixture are uniform in (-spread, spread)."""
    gradient: Literal["implicit", "straight_through"] = "implicit"
    """Of the mixture's weights; the published one is straight_through, which is biased."""
    phase: Literal["atan2", "linear"] = "linear"
    """Of a rotation given the image: atan2 (in all presets) follows it round the whole circle; linear, which runs of
    before the option have, does not."""


@dataclass(frozen=True)
class ObjectiveOptions(Checks):
    """The loss of classifier and augmenter, and how many views it sees."""

    alpha: float = 0.1
    """Price of a nat of the entropy of flow, instaaug and instaaug-lrp; where a controller moves it, its start."""
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

    def __post_init__(self) -> None:
        self.at_least(1, "views", "test_views")
        self.at_least(0, "burn_in", "freeze_after", "alpha", "penalty")


@dataclass(frozen=True)
class ControllerOptions:
    """What moves alpha so that the entropy stays in a band."""

    kind: Literal["none", "band", "pid"] = "none"
    """none, band (multiplicatively) or pid (published). The augmenters without alpha have nothing to move: augerino,
    pstn and those that learn nothing."""
    entropy: tuple[float, float] = (0.0, 4.0)
    """Least and largest entropy in nats that the controller aims for; d log 2 is the whole box."""
    alpha_limits: tuple[float, float] = (1e-4, 10.0)
    """Least and largest alpha."""


@dataclass(frozen=True)
class OptimizerOptions(Checks):
    """How both networks are optimised."""

    kind: Literal["adam", "sgd"] = "adam"
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

    def __post_init__(self) -> None:
        self.positive("lr", "lr_aug", "lr_end")
        self.at_least(0, "weight_decay")
