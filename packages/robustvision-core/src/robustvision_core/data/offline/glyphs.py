"""Procedural characters in alphabets, for few-shot learning without a download."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.hashed import uniform
from robustvision_core.errors import DataError

CHARACTERS = 16  # of each alphabet
ALPHABETS = {"train": range(15), "val": range(15, 20), "test": range(20, 25)}
STROKES = 4  # at most
POINTS = 40  # along each stroke; at 28 pixels they lie less than a pixel apart
BATCH = 4096  # samples whose strokes are drawn up at once
CHUNK = 16  # images drawn at once; more would leave the cache

_ALPHABET, _CHARACTER, _SAMPLE = range(3)  # what a random number is for
_COLUMNS, _ROWS = 3, 4  # the grid that strokes run between


def load_glyphs(query: Query, per_class: int = 20, size: int = 28, seed: int = 0) -> ImageSet:
    """Characters of 2 to 4 curved strokes in 25 alphabets of 16; the splits share no alphabet.

    An alphabet has its own curvature, slant and pen; a character its strokes between the nodes of a grid; a sample
    its own hand: shaken nodes and curvature, rotation, shear, scale, place and pen.

    Args:
        query: Its `split` is `train` (240 classes), `val` or `test` (80 each).
        per_class: Images of each class.
        size: Height and width.
        seed: Of the characters and of the samples. An image depends on (seed, class, index) alone, so that a larger
            `per_class` begins each class with the same images; its id is `class * 2**20 + index`.
    """
    if not 1 <= per_class <= 1 << 20:
        raise DataError(f"glyphs: per_class is {per_class}, expected 1 to {1 << 20}")
    if not 8 <= size <= 512:
        raise DataError(f"glyphs: size is {size}, expected 8 to 512 pixels")
    alphabets = ALPHABETS[query.split]
    first, count = alphabets.start * CHARACTERS, len(alphabets) * CHARACTERS
    classes = torch.arange(first, first + count).repeat_interleave(per_class)
    index = torch.arange(per_class).repeat(count)
    images = torch.empty(len(index), size, size, dtype=torch.uint8)
    for part in torch.arange(len(index)).split(BATCH):
        points, radius = write(classes[part], index[part], seed), pen(classes[part], index[part], seed)
        for rows in torch.arange(len(part)).split(CHUNK):
            images[part[rows]] = render(points[rows], radius[rows], size)
    names = tuple(f"alphabet{a:02d}/character{c:02d}" for a in alphabets for c in range(CHARACTERS))
    return ImageSet(images[:, None], classes - first, names, classes * (1 << 20) + index, query.title)


def write(classes: Tensor, index: Tensor, seed: int) -> Tensor:
    """(B, STROKES * POINTS, 2) places (x, y) in [-1, 1] along the strokes of samples (class, index), each (B,)."""
    start, end, bulge, absent = character(classes, seed)
    drawn = uniform(seed, (_SAMPLE, classes, index), 5 * STROKES + 6) * 2 - 1
    shake = drawn[:, : 5 * STROKES].unflatten(1, (STROKES, 5))
    start, end = start + 0.1 * shake[..., 0:2], end + 0.1 * shake[..., 2:4]
    bulge = bulge + 0.15 * shake[..., 4]
    across = torch.stack([start[..., 1] - end[..., 1], end[..., 0] - start[..., 0]], -1)
    middle = (start + end) / 2 + bulge[..., None] * across
    t = torch.linspace(0, 1, POINTS)[:, None]
    curve = (1 - t) ** 2 * start[..., None, :] + 2 * t * (1 - t) * middle[..., None, :] + t**2 * end[..., None, :]
    curve = torch.where(absent[..., None, None], curve[:, :1], curve)  # the first again, which covers itself
    slant = 0.25 * (2 * uniform(seed, (_ALPHABET, classes // CHARACTERS, 1), 1)[:, 0] - 1)
    return _hand(curve.flatten(1, 2), drawn[:, 5 * STROKES :], slant)


def character(classes: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The quadratic strokes of `classes` (B,).

    Returns:
        Start and end (B, STROKES, 2), bulge (B, STROKES), and which strokes the character lacks, (B, STROKES) bool.
    """
    curvature = 0.9 * uniform(seed, (_ALPHABET, classes // CHARACTERS, 0), 1)
    drawn = uniform(seed, (_CHARACTER, classes), 4 * STROKES + 1)
    each = drawn[:, : 4 * STROKES].unflatten(1, (STROKES, 4))
    nodes = _COLUMNS * _ROWS
    begin = (each[..., 0] * nodes).long()
    final = (begin + 1 + (each[..., 1] * (nodes - 1)).long()) % nodes  # never where it began
    for stroke in range(1, STROKES):  # most strokes go on from a node that the one before has touched
        goes_on = each[:, stroke, 2] < 0.7
        begin[:, stroke] = torch.where(goes_on, final[:, stroke - 1], begin[:, stroke])
        same = begin[:, stroke] == final[:, stroke]
        final[:, stroke] = torch.where(same, (final[:, stroke] + 1) % nodes, final[:, stroke])
    absent = torch.arange(STROKES) >= 2 + (drawn[:, -1:] > 0.2).long() + (drawn[:, -1:] > 0.6).long()
    return _node(begin), _node(final), curvature * (2 * each[..., 3] - 1), absent


def pen(classes: Tensor, index: Tensor, seed: int) -> Tensor:
    """(B,) half the width of the line, in units of half the image: the alphabet's, varied by sample."""
    alphabet = uniform(seed, (_ALPHABET, classes // CHARACTERS, 2), 1)[:, 0]
    sample = uniform(seed, (_SAMPLE, classes, index, 1), 1)[:, 0]
    return 0.05 + 0.03 * alphabet + 0.03 * sample


def render(points: Tensor, radius: Tensor, size: int) -> Tensor:
    """Draw white lines through points on black.

    The distance of every pixel to the nearest point gives the coverage: 1 within the radius, falling to 0 over one
    pixel.

    Args:
        points: (B, P, 2) places (x, y); the image is [-1, 1] both ways.
        radius: (B,) half the width of the line, in the same units.
        size: Height and width.

    Returns:
        (B, size, size) uint8.
    """
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack([x, y], -1).view(1, -1, 2).expand(len(points), -1, -1)
    # |p|^2 is added after the minimum, as it is the same for all points of a pixel
    nearest = torch.baddbmm(points.square().sum(-1)[:, None], pixels, points.mT, alpha=-2).amin(-1)
    distance = (nearest + pixels.square().sum(-1)).clamp_min_(0).sqrt_()
    coverage = ((radius[:, None] - distance) * (size / 2) + 0.5).clamp_(0, 1)
    return (coverage * 255).round_().to(torch.uint8).view(-1, size, size)


def _node(number: Tensor) -> Tensor:
    column, row = number % _COLUMNS, number // _COLUMNS
    return torch.stack([0.55 * (column - (_COLUMNS - 1) / 2), 0.42 * (row - (_ROWS - 1) / 2)], -1)


def _hand(points: Tensor, drawn: Tensor, slant: Tensor) -> Tensor:
    """Points (B, P, 2) under each sample's affine map, from six numbers in [-1, 1) each, (B, 6)."""
    turn, lean, wide, high, right, down = drawn.unbind(1)
    angle, shear = turn * math.pi / 9, slant + 0.25 * lean
    wide, high = 1 + 0.25 * wide, 1 + 0.25 * high
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([cos * wide, cos * shear - sin * high, sin * wide, sin * shear + cos * high], -1)
    return points @ matrix.unflatten(-1, (2, 2)).mT + 0.22 * torch.stack([right, down], -1)[:, None]
