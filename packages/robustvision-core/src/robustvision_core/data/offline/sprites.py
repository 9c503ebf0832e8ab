"""Two figures turned by angles that are known: classes that only the orientation tells apart."""

from __future__ import annotations

import math
import pathlib

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.offline.sprite_art import draw_sprites
from robustvision_core.data.reading.npz_archive import NpzArchive
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.hashed import uniform
from robustvision_core.data.transforms.augment import rotate
from robustvision_core.data.transforms.convert import CHUNK
from robustvision_core.errors import DataError

COUNTS = {"train": 12_000, "test": 600}
SIZES = (32, 16)


def load_sprites(
    query: Query,
    degrees: float = 45,
    modes: int = 1,
    size: int = 32,
    count: int | None = None,
    seed: int = 0,
    npz: str = "",
) -> ImageSet:
    r"""Two sprites, each turned by a random angle, in the manner of Mario-Iggy (Benton et al. 2020).

    Classes: the first sprite up and down, then the second up and down. Those up are turned by
    $u + 2 \pi k / M$ with `u` uniform in [-degrees, degrees] and `k` one of the `M` modes; those down by
    $\pi$ more, or $\pi / M$ where `M` is even, which puts them midway between the modes. With `degrees` of 90 and one
    mode, or 30 and three, the classes meet.

    Args:
        query: Its `split` is `train` or `test`: other angles.
        degrees: Half the width of a mode.
        modes: Angles that a class is centred on, evenly around the circle.
        size: 32, or 16 by averaging four pixels of each 32x32 image.
        count: Images, of the classes in turn; None gives 12,000 for training and 600 for the test.
        seed: Of the angles; an image depends on (seed, split, index) alone, and its id is the index.
        npz: A file of two images to take in place of the sprites drawn here: see `read_sprites`.

    Returns:
        Images (count, C, size, size), with `extras["angle"]` (count,) float32 radians in [-pi, pi): how far each is
        turned from its sprite upright, those down included, clockwise as seen; see `robustvision_core.data.rotate`.
    """
    count = COUNTS[query.split] if count is None else count
    _check(degrees, modes, size, count)
    sprites, names = read_sprites(pathlib.Path(npz).expanduser()) if npz else draw_sprites(32)
    index = torch.arange(count)
    labels = index % 4
    angles = draw_angles(index, list(COUNTS).index(query.split), seed, math.radians(degrees), modes)
    images = torch.cat([turn(sprites[labels[part] // 2], angles[part], size) for part in index.split(CHUNK)])
    classes = tuple(f"{name} {way}" for name in names for way in ("up", "down"))
    return ImageSet(images, labels, classes, index, query.title, {"angle": angles})


def draw_angles(index: Tensor, stream: int, seed: int, half: float, modes: int) -> Tensor:
    """(N,) float32 radians in [-pi, pi) of the images `index` (N,), of class `index % 4`; see `load_sprites`."""
    drawn = uniform(seed, (stream, index), 2)
    mode = (drawn[:, 1] * modes).floor()
    down = (index % 2) * (math.pi if modes % 2 else math.pi / modes)
    angle = (2 * drawn[:, 0] - 1) * half + mode * (2 * math.pi / modes) + down
    return (angle + math.pi) % (2 * math.pi) - math.pi


def turn(sprites: Tensor, angles: Tensor, size: int) -> Tensor:
    """Sprites (B, C, 32, 32) in [0, 1], each turned by its angle (B,), as (B, C, size, size) uint8."""
    turned = torch.nn.functional.avg_pool2d(rotate(sprites, angles), 32 // size)
    return (turned.clamp_(0, 1) * 255).round_().to(torch.uint8)


def read_sprites(path: pathlib.Path) -> tuple[Tensor, tuple[str, str]]:
    """Two sprites from an `.npz` of two images of 32x32 pixels, in the order of their keys, which name them.

    Returns:
        (2, C, 32, 32) float32 in [0, 1], and the names.

    Raises:
        DataError: The file is missing or broken, or does not hold two images: uint8, or floating point in [0, 1], of
            shape (C, 32, 32), (32, 32, C) or (32, 32), with or without a first dimension of 1; C is 1 or 3.
    """
    with NpzArchive(path) as archive:
        names = sorted(archive.keys)
        if len(names) != 2:
            raise DataError(f"{path} holds {', '.join(names) or 'nothing'}: expected two images")
        first, second = (_sprite(torch.from_numpy(archive.array(key)), f"{path}: {key}") for key in names)
    if first.shape != second.shape:
        raise DataError(f"{path}: {names[0]} has {len(first)} channels, {names[1]} {len(second)}")
    return torch.stack([first, second]), (names[0], names[1])


def _sprite(image: Tensor, name: str) -> Tensor:
    shape, found = tuple(image.shape), image.dtype
    image = image[0] if image.dim() == 4 and len(image) == 1 else image
    image = image[None] if image.dim() == 2 else image
    image = image.permute(2, 0, 1) if image.dim() == 3 and image.shape[:2] == (32, 32) else image
    levels = image.float() / 255 if found == torch.uint8 else image.float()
    good = image.shape in ((1, 32, 32), (3, 32, 32)) and (found == torch.uint8 or found.is_floating_point)
    if not good or not bool(((levels >= 0) & (levels <= 1)).all()):
        raise DataError(f"{name} is {shape} {found}: expected 32x32 pixels of uint8, or floating point in [0, 1]")
    return levels


def _check(degrees: float, modes: int, size: int, count: int) -> None:
    if not 0 <= degrees <= 180:
        raise DataError(f"sprites: degrees is {degrees}, expected 0 to 180")
    if not 1 <= modes <= 360:
        raise DataError(f"sprites: modes is {modes}, expected 1 to 360")
    if size not in SIZES:
        raise DataError(f"sprites: size is {size}, expected 32 or 16 pixels")
    if count < 1:
        raise DataError(f"sprites: count is {count}, expected 1 or more")
