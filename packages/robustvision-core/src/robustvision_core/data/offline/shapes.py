"""Coloured objects before textured backgrounds: an offline stand-in beside CIFAR-10."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.hashed import uniform
from robustvision_core.errors import DataError

SIZE = 32
COUNTS = {"train": 10_000, "test": 2_000}
CHUNK = 32  # images drawn at once; more would leave the cache

_SCENE, _NOISE = range(2)  # what a random number is for
_DRAWS = 26  # numbers that one scene takes


def polygon(*vertices: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """The signed distance to a closed polygon, negative inside, as a function of places (..., 2)."""
    x0, y0 = torch.tensor(vertices).T
    dx, dy = x0.roll(-1) - x0, y0.roll(-1) - y0
    over_length = 1 / (dx**2 + dy**2)
    slope = dx / torch.where(dy == 0, 1.0, dy)  # a level edge is never crossed

    def distance(place: Tensor) -> Tensor:
        x, y = place[..., 0:1] - x0, place[..., 1:2] - y0  # (..., V); by component, as sums over two are slow
        along = (x * dx + y * dy).mul_(over_length).clamp_(0, 1)
        nearest = (x - along * dx).square_() + (y - along * dy).square_()
        # a ray to the right crosses the outline an odd number of times from inside
        crosses = ((y >= 0) != (y >= dy)) & (x < y * slope)
        return torch.where(crosses.sum(-1) % 2 == 1, -1.0, 1.0) * nearest.amin(-1).sqrt()

    return distance


def _around(radii: tuple[float, ...]) -> list[tuple[float, float]]:
    """Vertices at equal angles and the given radii."""
    turns = [2 * math.pi * k / len(radii) - math.pi / 2 for k in range(len(radii))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, turns, strict=True)]


def _box(width: float, height: float) -> list[tuple[float, float]]:
    return [(-width, -height), (width, -height), (width, height), (-width, height)]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * k / 20 for k in range(20)]
    wave = [13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in turns]
    return [(math.sin(a) ** 3, -w / 16 - 0.1) for a, w in zip(turns, wave, strict=True)]


def _crescent(place: Tensor) -> Tensor:
    hole = (place - torch.tensor([0.55, 0.0])).norm(dim=-1)
    return torch.maximum(place.norm(dim=-1) - 1, 0.8 - hole)


_ARM, _LONG = 0.3, 0.95
_CROSS = [(_ARM, _LONG), (_ARM, _ARM), (_LONG, _ARM), (_LONG, -_ARM), (_ARM, -_ARM), (_ARM, -_LONG)]
_ARROW = [(1.0, 0.0), (0.2, 0.75), (0.2, 0.28), (-1.0, 0.28), (-1.0, -0.28), (0.2, -0.28), (0.2, -0.75)]

OUTLINES: dict[str, Callable[[Tensor], Tensor]] = {
    "disc": lambda place: place.norm(dim=-1) - 0.9,
    "ring": lambda place: (place.norm(dim=-1) - 0.7).abs() - 0.22,
    "crescent": _crescent,
    "heart": polygon(*_heart()),
    "triangle": polygon(*_around((1.0,) * 3)),
    "square": polygon(*_box(0.8, 0.8)),
    "bar": polygon(*_box(1.0, 0.32)),
    "cross": polygon(*_CROSS, *[(-x, -y) for x, y in _CROSS]),
    "star": polygon(*_around((1.0, 0.42) * 5)),
    "arrow": polygon(*_ARROW),
}
"""Signed distance to each object, about the origin, of radius 1."""


def load_shapes(query: Query, count: int | None = None, seed: int = 0) -> ImageSet:
    """Objects of any place, size, turn, proportion and colour, shaded, before a gradient with stripes and a blob.

    Args:
        query: Its `split` is `train` or `test`: other samples of the same distribution.
        count: Images, of the classes in turn; None gives 10,000 for training and 2,000 for the test.
        seed: An image depends on (seed, split, index) alone; its id is the index.
    """
    count = COUNTS[query.split] if count is None else count
    if count < 1:
        raise DataError(f"shapes: count is {count}, expected 1 or more")
    index = torch.arange(count)
    stream = list(COUNTS).index(query.split)
    images = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    for label, outline in enumerate(OUTLINES.values()):
        for part in index[label :: len(OUTLINES)].split(CHUNK):
            images[part] = render(outline, part, stream, seed)
    return ImageSet(images, index % len(OUTLINES), tuple(OUTLINES), index, query.title)


def render(outline: Callable[[Tensor], Tensor], index: Tensor, stream: int, seed: int) -> Tensor:
    """(B, 3, SIZE, SIZE) uint8: one object in each of the scenes numbered `index` (B,) of a stream."""
    drawn = iter(uniform(seed, (_SCENE, stream, index), _DRAWS).unbind(1))
    place = _pixels()
    dark, bright = 0.45 * _colour(drawn), 0.55 + 0.45 * _colour(drawn)
    swap = (next(drawn) < 0.5)[:, None, None]
    ground, paint = torch.where(swap, bright, dark), torch.where(swap, dark, bright)
    scene = ground + 0.3 * _ramp(place, drawn) + 0.1 * _stripes(place, drawn)
    scene = _lay(scene, _blob(place, drawn), _colour(drawn))
    scene = _lay(scene, _coverage(outline, place, drawn), paint + 0.25 * _ramp(place, drawn))
    noise = uniform(seed, (_NOISE, stream, index), 3 * SIZE * SIZE).view(scene.shape) - 0.5
    levels = (scene + 0.12 * noise).clamp_(0, 1) * 255
    return levels.round_().to(torch.uint8).view(-1, 3, SIZE, SIZE)


def _pixels() -> Tensor:
    """(SIZE * SIZE, 2) places (x, y) of the pixels' centres, in [-1, 1]."""
    axis = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2)


def _coverage(outline: Callable[[Tensor], Tensor], place: Tensor, drawn: Iterator[Tensor]) -> Tensor:
    """(B, 1, pixels) in [0, 1]: how much of each pixel the object covers, of random pose."""
    radius, stretch, angle = 0.42 + 0.3 * next(drawn), 1.25 ** (2 * next(drawn) - 1), 2 * math.pi * next(drawn)
    centre = torch.stack([next(drawn), next(drawn)], -1) * 2 - 1
    offset = place - (0.9 - radius)[:, None, None] * centre[:, None]
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([cos, sin, -sin, cos], -1).unflatten(-1, (2, 2))
    scale = torch.stack([radius * stretch, radius / stretch], -1)[:, None]
    # off a circle the distance is that of the unstretched object: wrong by up to 25 % along the soft edge only
    distance = outline(offset @ turn.mT / scale) * radius[:, None]
    return (0.5 - distance * (SIZE / 2)).clamp(0, 1)[:, None]


def _blob(place: Tensor, drawn: Iterator[Tensor]) -> Tensor:
    """(B, 1, pixels): coverage by a small disc anywhere."""
    centre, radius = torch.stack([next(drawn), next(drawn)], -1) * 2 - 1, 0.1 + 0.15 * next(drawn)
    distance = (place - centre[:, None]).norm(dim=-1) - radius[:, None]
    return (0.5 - distance * (SIZE / 2)).clamp(0, 1)[:, None]


def _ramp(place: Tensor, drawn: Iterator[Tensor]) -> Tensor:
    """(B, 1, pixels): rising in a random direction, in [-1, 1]."""
    return _project(place, next(drawn)) * next(drawn)[:, None, None] / math.sqrt(2)


def _stripes(place: Tensor, drawn: Iterator[Tensor]) -> Tensor:
    """(B, 1, pixels): a sine of random direction, pitch, phase and strength, in [-1, 1]."""
    pitch, phase = (3 + 9 * next(drawn))[:, None, None], (2 * math.pi * next(drawn))[:, None, None]
    return (_project(place, next(drawn)) * pitch + phase).sin() * next(drawn)[:, None, None]


def _project(place: Tensor, turn: Tensor) -> Tensor:
    angle = 2 * math.pi * turn[:, None, None]
    return place[:, 0] * angle.cos() + place[:, 1] * angle.sin()


def _colour(drawn: Iterator[Tensor]) -> Tensor:
    return torch.stack([next(drawn) for _ in range(3)], -1)[..., None]


def _lay(below: Tensor, coverage: Tensor, above: Tensor) -> Tensor:
    return below + coverage * (above - below)
