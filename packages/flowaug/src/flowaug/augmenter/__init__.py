"""Distributions of transforms per image, what reads the image, and alignment by them."""

from __future__ import annotations

from flowaug.augmenter.alignment import Alignment, align
from flowaug.augmenter.base import Augmenter, AugOutput
from flowaug.augmenter.encoder import EncodedAugmenter, Encoder, Unconditional, make_encoder
from flowaug.augmenter.flow import FlowAugmenter

__all__ = [
    "Alignment",
    "AugOutput",
    "Augmenter",
    "EncodedAugmenter",
    "Encoder",
    "FlowAugmenter",
    "Unconditional",
    "align",
    "make_encoder",
]
