"""Label noise: models by name, noisy labels made from clean ones, files of noisy labels, and what is in them."""

from __future__ import annotations

from fdiv_noisy.noise.files import load_labels, save_labels
from fdiv_noisy.noise.injection import corrupt, instance_dependent
from fdiv_noisy.noise.models import cifar10_asymmetric, pair_flip, random, sparse, uniform
from fdiv_noisy.noise.presets import preset
from fdiv_noisy.noise.summary import NoiseSummary, confusion, describe

__all__ = [
    "NoiseSummary",
    "cifar10_asymmetric",
    "confusion",
    "corrupt",
    "describe",
    "instance_dependent",
    "load_labels",
    "pair_flip",
    "preset",
    "random",
    "save_labels",
    "sparse",
    "uniform",
]
