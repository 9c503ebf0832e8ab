from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from rml_meta import ColourEnvironments, TransformEnvironments, infer_environments
from rml_meta.environments import PALETTE, TRANSFORMS, colourise
from rml_meta.penalties import scale_gradients
from robustvision_core.data import EpisodeSampler, ImageSet
from scipy import ndimage


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_keep_shape_range_and_seed(name: str, channels: int) -> None:
    images = torch.rand(5, channels, 9, 9)
    before = images.clone()
    one, same, other = (TRANSFORMS[name](images, generator(s)) for s in (0, 0, 1))
    assert torch.equal(images, before)
    assert one.shape == images.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, same)
    assert torch.equal(one, other) == (name not in ("noise", "jitter", "texture"))
    assert (name == "identity" or (name == "grey" and channels == 1)) == torch.equal(one, images)


def test_transforms_by_other_libraries() -> None:
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    a = images.numpy()
    blurred = ndimage.gaussian_filter(a, (0, 0, 1.5, 1.5), mode="nearest", radius=(0, 0, 5, 5))
    np.testing.assert_allclose(TRANSFORMS["blur"](images, generator()), blurred, atol=1e-12)
    np.testing.assert_array_equal(TRANSFORMS["rotate90"](images, generator()), np.rot90(a, 1, (2, 3)))
    np.testing.assert_array_equal(TRANSFORMS["rotate180"](images, generator()), np.rot90(a, 2, (2, 3)))
    np.testing.assert_array_equal(TRANSFORMS["rotate270"](images, generator()), np.rot90(a, 3, (2, 3)))
    np.testing.assert_allclose(TRANSFORMS["invert"](images, generator()), 1 - a)
    grey = np.tensordot(a, [0.299, 0.587, 0.114], (1, 0))
    np.testing.assert_allclose(TRANSFORMS["grey"](images, generator()), np.stack([grey] * 3, 1), rtol=1e-6)
    low = TRANSFORMS["contrast"](images, generator()).numpy()
    np.testing.assert_allclose(low.std((1, 2, 3)), 0.3 * a.std((1, 2, 3)))
    np.testing.assert_allclose(low.mean((1, 2, 3)), a.mean((1, 2, 3)))


def test_noise_and_jitter_have_their_size() -> None:
    grey = torch.full((200, 1, 20, 20), 0.5)
    noisy = TRANSFORMS["noise"](grey, generator())
    inside = (noisy > 0) & (noisy < 1)
    share = math.erf(0.5 / 0.35 / math.sqrt(2))
    assert float(inside.float().mean()) == pytest.approx(share, abs=0.01)
    factors = TRANSFORMS["jitter"](grey, generator())[:, 0, 0, 0] / 0.5
    assert float(factors.min()) >= 0.5
    assert float(factors.max()) <= 1.5
    assert float(factors.std()) == pytest.approx(1 / math.sqrt(12), abs=0.04)


def test_each_environment_has_its_transform() -> None:
    images = torch.rand(3, 4, 1, 8, 8)
    make = TransformEnvironments(["identity", "invert", "noise"])
    shown = make(images, torch.zeros(3, 4).long(), generator(3))
    assert len(make) == 3
    assert torch.equal(shown[0], images[0])
    assert torch.equal(shown[1], 1 - images[1])
    assert torch.equal(shown[2], TRANSFORMS["noise"](images[2], generator(3)))


def test_colours_follow_the_label_as_often_as_said() -> None:
    labels = torch.arange(5).repeat(2, 8000)
    make = ColourEnvironments((0.9, 0.3))
    colours = make.colours(labels, generator())
    for env, p in enumerate((0.9, 0.3)):
        table = torch.zeros(5, 5)
        for label, colour in zip(labels[env].tolist(), colours[env].tolist(), strict=True):
            table[label, colour] += 1 / 8000
        own = table.argmax(1) if p > 0.5 else (table - 0.175).abs().argmax(1)
        assert len(set(own.tolist())) == 5  # a map one to one
        for label in range(5):
            for colour in range(5):
                expected = p if colour == own[label] else (1 - p) / 4
                assert float(table[label, colour]) == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize("shared", [True, False])
def test_the_map_is_shared_or_not(shared: bool) -> None:
    labels = torch.arange(5).repeat(2, 1)
    make = ColourEnvironments((1.0, 1.0), shared_map=shared)
    same = [torch.equal(*make.colours(labels, generator(seed))) for seed in range(20)]
    assert all(same) if shared else sum(same) <= 2
    maps = {tuple(make.colours(labels, generator(seed))[0].tolist()) for seed in range(20)}
    assert len(maps) > 10  # and another in every episode


def test_colouring() -> None:
    images = torch.rand(2, 3, 1, 4, 4)
    make = ColourEnvironments((0.9, 0.8))
    labels = torch.tensor([[0, 1, 2], [2, 1, 0]])
    shown = make(images, labels, generator(1))
    colours = make.colours(labels, generator(1))
    for e in range(2):
        for m in range(3):
            for c in range(3):
                torch.testing.assert_close(shown[e, m, c], images[e, m, 0] * PALETTE[int(colours[e, m])][c])
    assert colourise(torch.rand(4, 3, 5, 5), torch.rand(4, 3)).shape == (4, 3, 5, 5)


def test_environments_in_the_sampler() -> None:
    data = ImageSet(torch.full((60, 1, 6, 6), 255, dtype=torch.uint8), torch.arange(60) % 6, tuple("abcdef"))
    sampler = EpisodeSampler(
        data, 5, 1, 3, 4, environments=ColourEnvironments((1.0, 1.0)), batch_size=2, mean=0.0, std=1.0
    )
    batch = next(sampler.epoch(0))
    assert batch.support_x.shape == (2, 2, 5, 3, 6, 6)
    for g in range(2):
        for e in range(2):  # support and query are coloured by one map
            of = {}
            for x, y in ((batch.support_x, batch.support_y), (batch.query_x, batch.query_y)):
                for image, label in zip(x[g, e], y[g, e], strict=True):
                    of.setdefault(int(label), set()).add(tuple(image[:, 0, 0].tolist()))
            assert all(len(colours) == 1 for colours in of.values())
            assert len({next(iter(colours)) for colours in of.values()}) == 5


def test_inferred_environments_are_the_best_split() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        logits, labels = 2 * torch.randn(10, 3, dtype=torch.float64), torch.randint(3, (10,))
        g = scale_gradients(logits, labels).numpy()

        def objective(split: np.ndarray, g: np.ndarray = g) -> float:
            return float((g * split).mean() ** 2 + (g * (1 - split)).mean() ** 2)

        best = max(objective(np.array(s)) for s in itertools.product((0, 1), repeat=10))
        ours = infer_environments(logits, labels).numpy()
        assert objective(ours) == pytest.approx(best)
        soft = np.random.default_rng(seed).random((200, 10))
        assert max(objective(s) for s in soft) <= best


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TransformEnvironments(["identity", "sepia"]), r"unknown transforms \['sepia'\]"),
        (lambda: TransformEnvironments([]), "one or more of identity"),
        (lambda: ColourEnvironments((1.2,)), "must be probabilities"),
        (lambda: ColourEnvironments(palette=[(1.0, 0.0, 0.0)]), "two or more"),
        (
            lambda: TransformEnvironments(["identity"])(torch.rand(2, 1, 1, 4, 4), torch.zeros(2, 1), generator()),
            "images .E, M, C, H, W. of 1 environments",
        ),
    ],
)
def test_wrong_options(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
