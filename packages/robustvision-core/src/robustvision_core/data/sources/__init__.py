"""One module a family of data sets; importing this registers them all, the procedural ones included."""

from robustvision_core.data.offline import drones, glyphs, shapes, sprites
from robustvision_core.data.sources import (
    bop,
    cifar,
    digit_domains,
    digits,
    folder,
    folder_domains,
    house_numbers,
    idx,
    mnist_m,
    mnist_m_released,
    npz,
    omniglot,
    selections,
    tiny_imagenet,
    uava,
)

__all__ = [
    "bop",
    "cifar",
    "digit_domains",
    "digits",
    "drones",
    "folder",
    "folder_domains",
    "glyphs",
    "house_numbers",
    "idx",
    "mnist_m",
    "mnist_m_released",
    "npz",
    "omniglot",
    "selections",
    "shapes",
    "sprites",
    "tiny_imagenet",
    "uava",
]
