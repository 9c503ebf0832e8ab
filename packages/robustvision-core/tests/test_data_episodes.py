from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustvision_core.data import EpisodeBatch, EpisodeDraw, EpisodeSampler, ImageSet
from robustvision_core.errors import DataError, UserError
from torch import Tensor


def make(counts: tuple[int, ...] = (9, 12, 10, 9, 20), channels: int = 1) -> ImageSet:
    """A set in random order whose images are their own number, so that what came out can be told."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, channels, 2, 3).contiguous()
    return ImageSet(images, labels, tuple("abcdefgh"[: len(counts)]))


def sampler(data: ImageSet, **options: object) -> EpisodeSampler:
    return EpisodeSampler(data, **({"ways": 3, "shots": 2, "queries": 4, "episodes": 6} | options))  # type: ignore[arg-type]


class Shift:
    """Two environments: as it is, and noise added."""

    def __len__(self) -> int:
        return 2

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return images + torch.tensor([0.0, 1.0])[:, None, None, None, None] * torch.rand(
            images.shape, generator=generator
        )


def check_classes(data: ImageSet, support: Tensor, query: Tensor, ways: int, shots: int, queries: int) -> list[int]:
    """Plain loops over one task: right counts, no image twice; the classes in label order."""
    seen = [*support.tolist(), *query.tolist()]
    assert len(set(seen)) == len(seen) == ways * (shots + queries)
    classes = []
    for way in range(ways):
        of_support = {int(data.labels[i]) for i in support[way * shots : (way + 1) * shots]}
        of_query = {int(data.labels[i]) for i in query[way * queries : (way + 1) * queries]}
        assert of_support == of_query
        assert len(of_support) == 1
        classes += of_support
    assert len(set(classes)) == ways
    return classes


def test_episodes_are_right() -> None:
    data = make()
    batches = list(sampler(data, batch_size=4, mean=0.5, std=0.25).epoch(0))
    assert [len(b.support_y) for b in batches] == [4, 2]
    for batch in batches:
        assert batch.env is None
        assert batch.support_x.shape == (len(batch.support_y), 6, 1, 2, 3)
        assert batch.query_x.shape == (len(batch.support_y), 12, 1, 2, 3)
        for g in range(len(batch.support_y)):
            check_classes(data, batch.support_index[g], batch.query_index[g], 3, 2, 4)
            assert batch.support_y[g].tolist() == [0, 0, 1, 1, 2, 2]
            assert batch.query_y[g].tolist() == [0] * 4 + [1] * 4 + [2] * 4
        for x, index in ((batch.support_x, batch.support_index), (batch.query_x, batch.query_index)):
            expected = (index.double() / 255 - 0.5) / 0.25
            torch.testing.assert_close(x, expected[..., None, None, None].expand(x.shape).float())


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(4, 9), min_size=2, max_size=5),
    ways=st.integers(1, 2),
    shots=st.integers(1, 2),
    queries=st.integers(1, 2),
    seed=st.integers(0, 2**40),
)
def test_every_draw_is_an_episode(counts: list[int], ways: int, shots: int, queries: int, seed: int) -> None:
    data = make(tuple(counts))
    draw = EpisodeDraw(data, ways, shots, queries, seed=seed)
    check_classes(data, *draw.draw(seed % 97), ways, shots, queries)


def test_draws_are_uniform() -> None:
    # every image of a class must come up equally often, and every class under every label
    data = make((4, 8, 5))
    draw = EpisodeDraw(data, 2, 1, 1)
    images, classes = Counter(), Counter()
    rounds = 3000
    for number in range(rounds):
        support, query = draw.draw(number)
        images.update(support.tolist())
        images.update(query.tolist())
        classes.update((way, int(data.labels[i])) for way, i in enumerate(support))
    for label, size in enumerate((4, 8, 5)):
        expected = rounds * (2 / 3) * 2 / size
        for i in (data.labels == label).nonzero()[:, 0].tolist():
            assert abs(images[i] - expected) < 5 * math.sqrt(expected)
        for way in range(2):
            assert abs(classes[way, label] - rounds / 3) < 5 * math.sqrt(rounds / 3)


def test_an_episode_depends_on_seed_and_number_alone() -> None:
    data = make()
    one = sampler(data, seed=4).batch([7])
    torch.rand(3)
    whole = sampler(data, seed=4, batch_size=3, environments=None).batch([2, 7, 5])
    assert torch.equal(one.support_index[0], whole.support_index[1])
    assert torch.equal(one.query_x[0], whole.query_x[1])
    different = [sampler(data, seed=s).indices([n]).support for s, n in ((4, 7), (5, 7), (4, 8))]
    assert len({tuple(d.flatten().tolist()) for d in different}) == 3


@pytest.mark.parametrize("environments", [None, Shift()])
def test_resuming_gives_the_same_batches(environments: Shift | None) -> None:
    options = {"batch_size": 2, "environments": environments, "shots": 1, "queries": 2}
    whole = list(sampler(make(), **options).epoch(3))
    again = list(sampler(make(), **options).epoch(3, 1))
    for a, b in zip(whole[1:], again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if x is not None)


def test_epochs_differ_unless_fixed() -> None:
    data = make()
    for fixed in (False, True):
        of = sampler(data, fixed=fixed)
        one, two = (torch.cat([b.support_index for b in of.epoch(e)]) for e in (0, 1))
        assert torch.equal(one, two) == fixed


@pytest.mark.parametrize("environments", [None, Shift()])
def test_processes_share_one_batch(environments: Shift | None) -> None:
    options = {"batch_size": 4, "environments": environments, "shots": 1, "queries": 2}
    whole = list(sampler(make(), **options).epoch(1))
    parts = [list(sampler(make(), rank=r, world_size=2, **options).epoch(1)) for r in (0, 1)]
    assert [len(b.support_y) for b in parts[0]] == [2, 1]
    for batch, *of_ranks in zip(whole, *parts, strict=True):
        joined = [None if p[0] is None else torch.cat(p) for p in zip(*of_ranks, strict=True)]
        assert all(x is y is None or torch.equal(x, y) for x, y in zip(batch, joined, strict=True))


def test_environments_share_classes_and_no_image() -> None:
    data = make()
    batch = next(sampler(data, environments=Shift(), shots=1, queries=3, batch_size=2, mean=0, std=1).epoch(0))
    assert batch.env is not None
    assert batch.env.tolist() == [[0, 1], [0, 1]]
    assert batch.support_x.shape == (2, 2, 3, 1, 2, 3)
    for g in range(2):
        tasks = [check_classes(data, batch.support_index[g, e], batch.query_index[g, e], 3, 1, 3) for e in (0, 1)]
        assert tasks[0] == tasks[1]
        used = torch.cat([batch.support_index[g].flatten(), batch.query_index[g].flatten()]).tolist()
        assert len(set(used)) == len(used) == 24
    plain = batch.query_index.float()[..., None, None, None] / 255
    difference = batch.query_x - plain
    torch.testing.assert_close(difference[:, 0], torch.zeros_like(difference[:, 0]))
    assert difference[:, 1].min() > -1e-6
    assert difference[:, 1].std() > 0.2


def test_environments_of_images() -> None:
    data = make((8, 8, 8))
    env_of = torch.zeros(24, dtype=torch.long)
    for label in range(3):
        env_of[(data.labels == label).nonzero()[::2, 0]] = 1
    batch = next(sampler(data, env_of=env_of, shots=1, queries=3).epoch(0))
    for e in (0, 1):
        assert (env_of[batch.support_index[0, e]] == e).all()
        assert (env_of[batch.query_index[0, e]] == e).all()
    tasks = [check_classes(data, batch.support_index[0, e], batch.query_index[0, e], 3, 1, 3) for e in (0, 1)]
    assert tasks[0] == tasks[1]


def test_groups_of_classes() -> None:
    data = make((9, 9, 9, 9, 9))
    groups = torch.tensor([1, 0, 1, 0, 1])
    for number in range(5):
        support, query = EpisodeDraw(data, 2, 2, 3, groups=groups).draw(number)
        for e in (0, 1):
            classes = check_classes(data, support[e], query[e], 2, 2, 3)
            assert all(groups[c] == e for c in classes)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ((9, 5, 9), {}, "class 'b' has 5 images, 2 shots and 4 queries need 6: lower one of them"),
        ((9, 11, 9), {"environments": Shift()}, "class 'a' has 9 images, .* for each of 2 environments need 12"),
        ((5, 5, 9), {}, r"class 'a' has 5 images, .*\(2 classes or environments are short\)"),
        ((9, 9, 0), {}, "has 2 classes with images, episodes of 3 ways need at least 3"),
        ((9, 9, 9), {"env_of": torch.zeros(3)}, r"env_of must be \(27,\) int64 numbers from 0"),
        ((9, 9, 9), {"env_of": torch.arange(27) // 26}, "class '.' has . images in environment [01], .* need 6"),
        ((9, 9, 9, 9), {"groups": torch.tensor([0, 0, 0, 1])}, "group 1 has 1 classes with images"),
    ],
)
def test_too_few_images_is_an_error(counts: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sampler(make(counts), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"shots": 0},
        {"batch_size": 0},
        {"episodes": 5, "world_size": 2},
        {"rank": 1},
        {"environments": Shift(), "groups": torch.zeros(5).long()},
    ],
)
def test_wrong_numbers(options: dict) -> None:
    with pytest.raises(UserError):
        sampler(make(), **options)


def test_augmentation_sees_the_episode_in_its_range() -> None:
    seen = []

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(images)
        return 1 - images

    batch: EpisodeBatch = next(sampler(make(), augment=augment, mean=0, std=1).epoch(0))
    assert seen[0].shape == (18, 1, 2, 3)
    torch.testing.assert_close(batch.query_x[0, :, 0, 0, 0], 1 - batch.query_index[0] / 255)
