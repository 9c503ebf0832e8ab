"""The settings of Singhal et al. 2023, from the published scripts; the toy runs have the sprites drawn here in place of
Mario and Iggy."""

from __future__ import annotations

from flowaug.cli.recipes.config import TrainConfig
from flowaug.cli.recipes.groups import ImageOptions

TOY = TrainConfig().changed(
    preset="sprites-45-paper",
    phase="atan2",
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
LENET = TrainConfig().changed(
    preset="mnist-paper",
    phase="atan2",
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
CIFAR = TrainConfig().changed(
    preset="cifar10-paper",
    phase="atan2",
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

_PRESETS = (
    TOY,
    TOY.changed(preset="sprites-90-paper", alpha_limits=(1e-3, 0.5), burn_in=1, epochs=250),
    TOY.changed(
        preset="sprites-3-paper",
        base="mog",
        components=90,
        spread=0.7,
        controller="none",
        batch_size=256,
        burn_in=3,
        freeze_after=3,
        epochs=150,
    ),
    TOY.changed(
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
    TOY.changed(
        preset="mnist-01569-paper",
        data="mnist-01569",
        start_scale=0.5,
        controller="none",
        alpha=0.3,
        batch_size=512,
        epochs=40,
    ),
    LENET,
    LENET.changed(
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
    CIFAR,
    CIFAR.changed(
        preset="cifar10-lt-paper",
        data="cifar-10-lt",
        alpha=0.05,
        trans_scale=0.5,
        spread=0.5,
        epochs=100,
        lr_steps=((0.8, 0.05),),
    ),
    CIFAR.changed(preset="layer13-paper", network="layer13", views=5, batch_size=100),
)
PRESETS = {config.preset: config for config in _PRESETS}

IMAGES = {
    "sprites-45-paper": ImageOptions(degrees=45),
    "sprites-90-paper": ImageOptions(degrees=90),
    "sprites-3-paper": ImageOptions(degrees=30, modes=3),
    "discovery-paper": ImageOptions(degrees=45),
    "mnist-01569-paper": ImageOptions(size=32),
}
