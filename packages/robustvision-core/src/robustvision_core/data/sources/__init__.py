"""One module a family of data sets; importing this registers them all, the procedural ones included."""

from robustvision_core.data.offline import glyphs, shapes
from robustvision_core.data.sources import cifar, digits, folder, house_numbers, idx, npz, omniglot, tiny_imagenet

__all__ = [
    "cifar",
    "digits",
    "folder",
    "glyphs",
    "house_numbers",
    "idx",
    "npz",
    "omniglot",
    "shapes",
    "tiny_imagenet",
]
