"""One module a family of data sets; importing this registers them all."""

from robustvision_core.data.sources import cifar, digits, folder, idx, npz

__all__ = ["cifar", "digits", "folder", "idx", "npz"]
