"""Configurations of training, with the published settings and the measured better ones by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.networks.names import check_network
from robustvision_core.run.options import Checks, RunOptions

from fdiv_noisy.cli.names import CORRECTABLE, LOSSES, NETWORKS


@dataclass(frozen=True)
class Optimizer(Checks):
    """How the weights follow the gradient."""

    name: Literal["adam", "sgd"] = "adam"
    """Which one."""
    lr: float = 1e-3
    """Learning rate at the start."""
    lr_steps: tuple[tuple[float, float], ...] = ((0.6, 0.5), (0.85, 0.1))
    """(share of the epochs, factor): from there on the rate is the factor times its start."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.0
    """Weight of the squared norm."""

    def __post_init__(self) -> None:
        self.at_least(0, "momentum", "weight_decay")
        self.positive("lr")


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a classifier on noisy labels; the clean test set is looked at once, at the end."""

    preset: str = "quick"
    """Which defaults the other options change: quick, smoke (tries the code in seconds), mnist, fashion, cifar10,
    mnist-paper, cifar10-paper, cifar100-paper or clothing1m-paper."""
    data: str = "digits"
    """Data set: digits, mnist, fashion-mnist, cifar-10, cifar-100, npz:PATH, or your images as folder:PATH, csv:PATH,
    parquet:PATH, hf:PATH, webdataset:PATH."""
    noise: str = "sparse-high"
    """Label noise: none, a model of the paper (sparse-low, sparse-high, uniform-low, uniform-high, random-low,
    random-high), uniform:RATE, random:P, pair:RATE, asymmetric:RATE, instance:RATE, published:r0_2 (the paper's file
    under the data root), or file:PATH[:KEY] (.pt, .npy or .npz)."""
    noise_seed: int = 0
    """Draws the noise; apart from the seed, so that runs of several seeds share their labels."""
    loss: str = "auto"
    """auto (finds the noise and chooses), ce, a divergence (tv, js, pearson, neyman, kl, reverse_kl, jeffrey,
    sq_hellinger), pair-conditional, forward, backward, gce, sce, mae, nce-rce, peer or dmi."""
    product: Literal["exact", "shift", "external"] = "exact"
    """Where a divergence takes independent labels from: exact has the least variance, shift the least cost, external
    is the published algorithm."""
    correction: str = "none"
    """Noise to correct for: none, estimate (from the noisy labels alone), true (from the clean ones, to compare), or
    the path of a (K, K) matrix. forward, backward and pair-conditional take estimate where this is none;
    pair-conditional takes the pairs alone from it."""
    warmup: int = 0
    """Epochs of cross-entropy first; auto and pair-conditional take at least one."""
    network: str = "cnn"
    """cnn for grey images of 28 pixels, resnet8, resnet20 or preact_resnet18 for 32, resnet50 for photos, or timm:NAME
    and torchvision:NAME."""
    weights: str = ""
    """A file of weights that the network of timm or torchvision starts from, with that network's normalisation."""
    init: str = ""
    """Start from the weights of this checkpoint."""
    train_size: int = 0
    """So many samples of the training set, the first ones, of folder and npz random ones of every class; 0 takes all
    that validation leaves."""
    val_size: int = 0
    """So many samples, with their noisy labels, choose the best epoch: the last ones of the training set, of folder and
    npz random ones of every class. 0 takes the last epoch. With --stream any number stands for the folder's val."""
    stream: bool = False
    """Decode the images of folder:PATH and other files as they are needed, for sets too large for memory and disk."""
    image_size: int = 28
    """Side in pixels that digits and folder images are loaded at."""
    epochs: int = 8
    """Passes over the training set."""
    batch_size: int = 128
    """Samples a step, all processes together."""
    augment: bool = False
    """Random shifts by up to 4 pixels, flips and rotations by up to 15 degrees, as the paper does on CIFAR."""
    optimizer: Optimizer = Optimizer()  # it is frozen
    """How the weights follow the gradient."""

    PRESETS: ClassVar[dict[str, TrainConfig]]
    ALIASES: ClassVar[dict[str, str]] = {
        "optimizer": "optimizer.name",
        "lr": "optimizer.lr",
        "lr_steps": "optimizer.lr_steps",
        "momentum": "optimizer.momentum",
        "weight_decay": "optimizer.weight_decay",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise unknown_name("loss", self.loss, LOSSES)
        check_network(self.network, NETWORKS, self.weights, "starts from --init")
        if self.correction != "none" and self.loss not in CORRECTABLE:
            raise UserError(f"{self.loss} takes no --correction: use it with one of {', '.join(CORRECTABLE)}")
        self.at_least(1, "epochs", "batch_size", "image_size")
        self.at_least(0, "train_size", "val_size", "warmup")


_QUICK = TrainConfig(epochs=30, batch_size=32)  # digits has 1,442 images
_MNIST = TrainConfig(preset="mnist", data="mnist", noise="published:r0_2")
_CIFAR = TrainConfig(
    preset="cifar10",
    data="cifar-10",
    noise="published:r0_2",
    network="preact_resnet18",
    image_size=32,
    epochs=100,
    optimizer=Optimizer("sgd", lr=0.05, weight_decay=5e-4),
    augment=True,
    warmup=10,
)

TrainConfig.PRESETS = {
    "quick": _QUICK,
    "smoke": replace(_QUICK, preset="smoke", train_size=300, image_size=16, epochs=2),  # tries the code in seconds
    # what was measured best on the full set in a few minutes of two cores
    "mnist": _MNIST,
    "fashion": replace(_MNIST, preset="fashion", data="fashion-mnist"),
    "cifar10": _CIFAR,
    # Wei and Liu 2021 with the schedules of the code published with it; its second and third batches are
    # product="external". In all of them our networks end with batch norm and ReLU where they are pre-activation ones,
    # images are normalised by the training set's own statistics, and the optimizer keeps its state over epochs, which
    # the published code makes anew each epoch.
    "mnist-paper": replace(
        _MNIST,
        preset="mnist-paper",
        loss="tv",
        product="external",
        val_size=10_000,
        epochs=80,
        optimizer=Optimizer(lr_steps=((21 / 80, 0.5),)),
    ),
    # from scratch, as the text says; the code goes on from 240 epochs of cross-entropy: give such a run as --init
    "cifar10-paper": replace(
        _CIFAR,
        preset="cifar10-paper",
        loss="tv",
        product="external",
        val_size=10_000,
        optimizer=replace(_CIFAR.optimizer, lr=0.01, lr_steps=((0.3, 0.1), (0.6, 0.01), (0.9, 0.001))),
        warmup=0,
    ),
    # the text's 120 epochs of cross-entropy, then the 100 of the other sets; the code goes on from the best of 240
    "cifar100-paper": replace(
        _CIFAR,
        preset="cifar100-paper",
        data="cifar-100",
        noise="published:r0_1",
        loss="tv",
        product="external",
        val_size=10_000,
        epochs=220,
        optimizer=replace(
            _CIFAR.optimizer,
            lr=0.1,
            lr_steps=((60 / 220, 0.1), (150 / 220, 0.01), (180 / 220, 0.001), (210 / 220, 0.0001)),
        ),
        warmup=120,
    ),
    # the published network starts from ImageNet weights, this one at random (or --init); the product's labels are drawn
    # evenly from the classes there, from a third batch here; augmentation rotates and shifts besides the crop and flip
    "clothing1m-paper": replace(
        _CIFAR,
        preset="clothing1m-paper",
        data="folder:clothing1m",
        noise="none",
        loss="tv",
        product="external",
        network="resnet50",
        image_size=224,
        stream=True,
        val_size=1,
        epochs=40,
        batch_size=128,
        optimizer=replace(
            _CIFAR.optimizer,
            lr=0.002,
            lr_steps=(
                (0.25, 0.025),
                (0.375, 0.005),
                (0.5, 0.0025),
                (0.625, 0.0005),
                (0.75, 0.00025),
                (0.875, 0.00005),
            ),
            weight_decay=1e-3,
        ),
        warmup=10,
    ),
}
