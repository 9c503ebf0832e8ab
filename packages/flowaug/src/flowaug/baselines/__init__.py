"""Rival augmenters with the interface of `flowaug.FlowAugmenter`."""

from __future__ import annotations

from flowaug.baselines.augerino import AugerinoAugmenter
from flowaug.baselines.location_relation import LocationRelationAugmenter, crop_table
from flowaug.baselines.mean_field import MeanFieldAugmenter
from flowaug.baselines.policies import IdentityAugmenter, PolicyAugmenter
from flowaug.baselines.pstn import PSTNAugmenter

__all__ = [
    "AugerinoAugmenter",
    "IdentityAugmenter",
    "LocationRelationAugmenter",
    "MeanFieldAugmenter",
    "PSTNAugmenter",
    "PolicyAugmenter",
    "crop_table",
]
