"""Configurations of training: small ones for a processor, and the paper's by name. Nothing here imports torch."""

from __future__ import annotations

from flowaug.cli.recipes import processor, published
from flowaug.cli.recipes.config import AUGMENTERS, FIXED, NETWORKS, TrainConfig
from flowaug.cli.recipes.groups import (
    ControllerOptions,
    FlowOptions,
    ImageOptions,
    ObjectiveOptions,
    OptimizerOptions,
    SpaceOptions,
)

TrainConfig.PRESETS = processor.PRESETS | published.PRESETS
TrainConfig.PRESET_IMAGES = processor.IMAGES | published.IMAGES

__all__ = [
    "AUGMENTERS",
    "FIXED",
    "NETWORKS",
    "ControllerOptions",
    "FlowOptions",
    "ImageOptions",
    "ObjectiveOptions",
    "OptimizerOptions",
    "SpaceOptions",
    "TrainConfig",
]
