"""Spaces of transforms with parameters in the box [-1, 1]^d."""

from __future__ import annotations

from flowaug.spaces.affine import FREE_ENTRIES, GENERATORS, ROTATION_DISCOVERY, AffineSpace
from flowaug.spaces.base import GeometricSpace, Space, check_images
from flowaug.spaces.color import ColorSpace
from flowaug.spaces.crop import CropSpace
from flowaug.spaces.exponential import affine_exponential, affine_logarithm

__all__ = [
    "FREE_ENTRIES",
    "GENERATORS",
    "ROTATION_DISCOVERY",
    "AffineSpace",
    "ColorSpace",
    "CropSpace",
    "GeometricSpace",
    "Space",
    "affine_exponential",
    "affine_logarithm",
    "check_images",
]
