"""One module a family of data sets; importing this registers them all, the procedural ones included."""

from robustvision_core.data.offline import glyphs, shapes
from robustvision_core.data.sources import cifar, digits, folder, idx, npz

__all__ = ["cifar", "digits", "folder", "glyphs", "idx", "npz", "shapes"]
