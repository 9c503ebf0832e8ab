"""Per-image augmentation distributions from conditional normalizing flows."""

__version__ = "0.1.0"
