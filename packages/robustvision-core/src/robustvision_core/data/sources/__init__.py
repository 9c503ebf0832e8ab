"""One module a family of data sets; importing this registers them all, the procedural ones included."""

from robustvision_core.data.offline import drones, glyphs, shapes
from robustvision_core.data.sources import (
    bop,
    cifar,
    digits,
    folder,
    house_numbers,
    idx,
    npz,
    omniglot,
    tiny_imagenet,
    uava,
)

__all__ = [
    "bop",
    "cifar",
    "digits",
    "drones",
    "folder",
    "glyphs",
    "house_numbers",
    "idx",
    "npz",
    "omniglot",
    "shapes",
    "tiny_imagenet",
    "uava",
]
