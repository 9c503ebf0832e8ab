from __future__ import annotations

import pytest
import torch
from matplotlib.path import Path
from robustvision_core.data import ImageSet, load
from robustvision_core.data.offline import glyphs, shapes
from robustvision_core.data.sampling.hashed import uniform
from robustvision_core.errors import DataError
from torch import Tensor
from torch.nn import functional

MASK = (1 << 64) - 1


def splitmix(value: int) -> int:
    """The output function, on Python's unbounded integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_splitmix_reference_is_the_published_generator() -> None:
    # the first outputs for seed 1234567, as the Rosetta Code task "Pseudo-random numbers/Splitmix64" lists them
    gamma = 0x9E3779B97F4A7C15
    assert [splitmix((1234567 + k * gamma) & MASK) for k in range(2)] == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("seed", [0, 5, -3, 2**62])
def test_uniform_agrees_with_unbounded_integers(seed: int) -> None:
    keys = torch.tensor([0, 1, 17, 2**40])
    got = uniform(seed, (3, keys), 6)
    for row, key in zip(got, keys.tolist(), strict=True):
        state = splitmix((splitmix((splitmix(seed & MASK) + 3) & MASK) + key) & MASK)
        assert row.tolist() == [(splitmix((state + place) & MASK) >> 40) / 2**24 for place in range(6)]


def test_uniform_is_uniform_and_unrelated() -> None:
    drawn = uniform(1, (torch.arange(20000),), 4).double()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn[:, 0], 20, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi-square with 19 degrees of freedom: p < 1e-4
    corr = torch.corrcoef(drawn.T) - torch.eye(4)
    assert corr.abs().max() < 4 / 20000**0.5
    assert abs(float(torch.corrcoef(torch.stack([drawn[1:, 0], drawn[:-1, 0]]))[0, 1])) < 4 / 20000**0.5


def test_glyph_splits_share_no_class() -> None:
    parts = {split: load("glyphs", split, per_class=2) for split in ("train", "val", "test")}
    assert [part.num_classes for part in parts.values()] == [240, 80, 80]
    names = [name for part in parts.values() for name in part.classes]
    assert len(set(names)) == 400
    ids = torch.cat([part.ids for part in parts.values()])
    assert len(ids.unique()) == len(ids) == 800
    for part in parts.values():
        assert part.class_counts().unique().tolist() == [2]
        assert part.shape == (1, 28, 28)


def test_glyphs_are_a_function_of_seed_class_and_index() -> None:
    few, many = load("glyphs", "val", per_class=2), load("glyphs", "val", per_class=5)
    same = many.take(torch.isin(many.ids, few.ids))
    assert torch.equal(same.ids, few.ids)
    assert torch.equal(same.images, few.images)
    torch.manual_seed(5)
    assert torch.equal(load("glyphs", "val", per_class=2).images, few.images)
    assert not torch.equal(load("glyphs", "val", per_class=2, seed=1).images, few.images)


def test_glyph_samples_differ_and_hold_ink() -> None:
    data = load("glyphs", "test", per_class=5)
    assert len(data.images.flatten(1).unique(dim=0)) == len(data)
    ink = (data.images > 127).flatten(1).float().mean(1)
    assert ink.min() > 0.005
    assert ink.max() < 0.6


def test_glyphs_of_a_class_are_alike_without_being_trivial() -> None:
    data = load("glyphs", "test", per_class=10)
    pixels = data.images.view(80, 10, -1).float()
    centroids = pixels[:, :5].mean(1)
    found = torch.cdist(pixels[:, 5:].flatten(0, 1), centroids).argmin(1)
    accuracy = float((found == torch.arange(80).repeat_interleave(5)).float().mean())
    assert 0.1 < accuracy < 0.8  # chance is 1/80


def test_glyph_lines_are_distance_fields() -> None:
    points = torch.rand(3, 7, 2) * 1.4 - 0.7
    radius = torch.tensor([0.05, 0.1, 0.3])
    images = glyphs.render(points, radius, 20)
    for b in range(3):
        for row in range(0, 20, 3):
            for column in range(0, 20, 3):
                spot = torch.tensor([column + 0.5, row + 0.5]) / 10 - 1
                gap = min(float((spot - p).norm()) for p in points[b])
                expected = 255 * min(max((float(radius[b]) - gap) * 10 + 0.5, 0.0), 1.0)
                assert abs(float(images[b, row, column]) - expected) < 0.52


def test_glyph_points_leave_no_gaps() -> None:
    classes = torch.arange(400)
    strokes = glyphs.write(classes, classes, 0).unflatten(1, (glyphs.STROKES, glyphs.POINTS))
    steps = strokes.diff(dim=2).norm(dim=-1) * 14  # pixels
    assert steps.max() < 2 * float(glyphs.pen(classes, classes, 0).min()) * 14


def test_a_stroke_that_is_absent_repeats_the_first() -> None:
    classes = torch.arange(100)
    absent = glyphs.character(classes, 0)[3]
    strokes = glyphs.write(classes, classes, 0).unflatten(1, (glyphs.STROKES, glyphs.POINTS))
    repeats = (strokes == strokes[:, :1]).flatten(2).all(2)
    assert torch.equal(repeats[:, 1:], absent[:, 1:])
    assert not absent[:, :2].any()
    assert {int(n) for n in (~absent).sum(1)} == {2, 3, 4}


@pytest.mark.parametrize("name", ["heart", "triangle", "square", "bar", "cross", "star", "arrow"])
def test_polygon_distances_agree_with_matplotlib_and_dense_outlines(name: str) -> None:
    place = torch.rand(400, 2) * 3 - 1.5
    distance = shapes.OUTLINES[name](place)
    vertices = outline_of(name)
    ring = torch.cat([vertices, vertices[:1]])
    inside = torch.from_numpy(Path(ring.numpy()).contains_points(place.numpy()))
    assert torch.equal(distance < 0, inside)
    share = torch.linspace(0, 1, 400)[:, None, None]
    dense = (ring[:-1] * (1 - share) + ring[1:] * share).flatten(0, 1)
    torch.testing.assert_close(distance.abs(), torch.cdist(place, dense).amin(1), rtol=0, atol=4e-3)


def outline_of(name: str) -> Tensor:
    vertices = {
        "heart": shapes._heart(),
        "triangle": shapes._around((1.0,) * 3),
        "square": shapes._box(0.8, 0.8),
        "bar": shapes._box(1.0, 0.32),
        "cross": [*shapes._CROSS, *[(-x, -y) for x, y in shapes._CROSS]],
        "star": shapes._around((1.0, 0.42) * 5),
        "arrow": shapes._ARROW,
    }
    return torch.tensor(vertices[name])


def test_round_outlines() -> None:
    at = torch.tensor([[0.0, 0.0], [0.7, 0.0], [0.0, -0.95], [-0.9, 0.0]])
    torch.testing.assert_close(shapes.OUTLINES["disc"](at), torch.tensor([-0.9, -0.2, 0.05, 0.0]))
    torch.testing.assert_close(shapes.OUTLINES["ring"](at), torch.tensor([0.48, -0.22, 0.03, -0.02]))
    inside = shapes.OUTLINES["crescent"](torch.tensor([[-0.6, 0.0], [0.5, 0.0], [-1.1, 0.0]])) < 0
    assert inside.tolist() == [True, False, False]


def test_shapes_are_a_function_of_seed_split_and_index() -> None:
    few, many = load("shapes", count=30), load("shapes", count=200)
    assert few.shape == (3, 32, 32)
    assert torch.equal(few.images, many.images[:30])
    assert torch.equal(few.labels, many.labels[:30])
    assert many.class_counts().tolist() == [20] * 10
    assert not torch.equal(load("shapes", "test", count=30).images, few.images)
    assert not torch.equal(load("shapes", count=30, seed=1).images, few.images)


def test_shapes_need_more_than_a_linear_map() -> None:
    train, test = load("shapes", count=1500), load("shapes", "test", count=500)
    pooled = [functional.avg_pool2d(d.images.float() / 255, 2).flatten(1) for d in (train, test)]
    inputs, others = (torch.cat([p, torch.ones(len(p), 1)], 1) for p in pooled)
    target = functional.one_hot(train.labels, 10).float()
    weights = torch.linalg.solve(inputs.T @ inputs + 10 * torch.eye(inputs.shape[1]), inputs.T @ target)
    accuracy = float(((others @ weights).argmax(1) == test.labels).float().mean())
    assert accuracy < 0.35  # chance is 0.1


def test_the_object_shows_in_every_shape() -> None:
    """The same scene with and without its object differs by the object's area, and clearly."""
    index = torch.arange(64)
    for outline in shapes.OUTLINES.values():
        seen = shapes.render(outline, index, 0, 0).int()
        empty = shapes.render(lambda place: place[..., 0] * 0 + 9, index, 0, 0).int()
        changed = (seen - empty).abs().amax(1) > 12
        area = changed.flatten(1).float().mean(1)
        assert area.min() > 0.015
        assert area.max() < 0.7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("glyphs", {"per_class": 0}, "per_class is 0, expected 1 to"),
        ("glyphs", {"size": 7}, "size is 7, expected 8 to 512"),
        ("shapes", {"count": 0}, "count is 0, expected 1 or more"),
    ],
)
def test_wrong_options(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name, **options)  # type: ignore[arg-type]


def test_every_class_has_a_sample() -> None:
    data: ImageSet = load("shapes", count=10)
    assert data.labels.tolist() == list(range(10))
