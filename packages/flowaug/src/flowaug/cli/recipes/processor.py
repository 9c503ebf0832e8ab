"""Recipes for a processor: seconds to minutes, and the larger sets with fewer epochs and views than published."""

from __future__ import annotations

from flowaug.cli.recipes.config import TrainConfig
from flowaug.cli.recipes.groups import ImageOptions
from flowaug.cli.recipes.published import CIFAR, LENET

QUICK = TrainConfig().changed(
    phase="atan2",
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
SHORT = LENET.changed(
    preset="mnist", trans_scale=0.2, layers=4, views=4, epochs=10, lr=2e-3, lr_aug=2e-3, lr_steps=(), lr_end=0.1
)

_PRESETS = (
    QUICK,
    QUICK.changed(preset="smoke", layers=2, burn_in=1, epochs=2, batch_size=32, test_views=2),
    QUICK.changed(preset="sprites-45"),
    QUICK.changed(preset="sprites-90", alpha=0.1, epochs=14),
    QUICK.changed(
        preset="sprites-3", components=12, spread=1.2, views=4, alpha=0.3, burn_in=5, freeze_after=5, epochs=14
    ),
    # rotations of every direction: a classifier that has seen fewer takes rotations for as strange as skews
    QUICK.changed(
        preset="discovery",
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
    # the classes part where the steps are many enough: here about 470 without augmentation, then 1,400 with it
    QUICK.changed(
        preset="mnist-01569",
        data="mnist-01569",
        dims=("rot",),
        base="uniform",
        start_scale=0.5,
        alpha=0.3,
        burn_in=1,
        epochs=4,
    ),
    SHORT,
    SHORT.changed(preset="fashion-mnist", data="fashion-mnist", alpha=0.03),
    SHORT.changed(preset="rot-mnist-lt", data="rot-mnist-lt", network="simple_conv8", alpha=0.05),
    CIFAR.changed(preset="cifar10", views=4, epochs=60, burn_in=3),
    CIFAR.changed(preset="cifar10-lt", data="cifar-10-lt", views=4, alpha=0.05, trans_scale=0.5, spread=0.5, epochs=60),
    # InstaAug's schedule; the code of the paper's own row is not published
    TrainConfig().changed(
        preset="tiny-imagenet",
        phase="atan2",
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
)
PRESETS = {config.preset: config for config in _PRESETS}

IMAGES = {
    "quick": ImageOptions(size=16, train_size=4000),
    "smoke": ImageOptions(size=16, train_size=64),
    "sprites-45": ImageOptions(size=16, train_size=4000, degrees=45),
    "sprites-90": ImageOptions(size=16, train_size=4000, degrees=90),
    "sprites-3": ImageOptions(size=16, train_size=4000, degrees=30, modes=3),
    "discovery": ImageOptions(size=16, train_size=4000, degrees=90),
    "mnist-01569": ImageOptions(size=14),
}
