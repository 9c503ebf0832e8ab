"""Differentiable PnP layers and keypoint-based 6-DoF pose models."""

__version__ = "0.1.0"
