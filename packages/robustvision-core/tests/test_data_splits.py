from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robustvision_core.data import ImageSet, first, split, subset
from robustvision_core.data.sampling.splits import rank_in_class
from robustvision_core.errors import DataError


def make(labels: list[int] | torch.Tensor, classes: int) -> ImageSet:
    labels = torch.as_tensor(labels, dtype=torch.int64)
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return ImageSet(images, labels, tuple(map(str, range(classes))))


@given(st.lists(st.integers(0, 4), max_size=60), st.data(), st.booleans())
def test_parts_are_disjoint_of_exact_size_and_in_order(labels: list[int], draw: st.DataObject, strata: bool) -> None:
    data = make(labels, 5)
    a = draw.draw(st.integers(0, len(labels)))
    b = draw.draw(st.integers(0, len(labels) - a))
    parts = split(data, [a, b], seed=3, stratified=strata)
    assert [len(part) for part in parts] == [a, b]
    ids = torch.cat([part.ids for part in parts])
    assert len(ids.unique()) == a + b
    for part in parts:
        assert torch.equal(part.ids, part.ids.sort().values)
        assert torch.equal(part.labels, data.labels[part.ids])


def test_balanced_classes_stay_exactly_balanced() -> None:
    data = make(torch.arange(1000) % 10, 10)
    for part in split(data, [500, 300, 200], seed=0):
        assert part.class_counts().tolist() == [len(part) // 10] * 10


def test_unequal_classes_keep_their_proportions() -> None:
    counts = torch.tensor([700, 200, 90, 10])
    data = make(torch.arange(4).repeat_interleave(counts), 4)
    for part in split(data, [0.5, 0.3, 0.2], seed=1):
        assert (part.class_counts() - counts * len(part) / 1000).abs().max() < 2


def test_many_single_sample_classes_do_not_crowd_out_a_large_one() -> None:
    data = make([0] * 100 + list(range(1, 101)), 101)
    for seed in range(5):
        assert abs(int(subset(data, 60, seed).class_counts()[0]) - 30) <= 12  # 3 standard deviations


def test_every_sample_is_chosen_equally_often() -> None:
    data = make([0] * 6 + [1] * 3 + [2], 3)
    times = torch.zeros(10)
    for seed in range(600):
        times[subset(data, 5, seed).ids] += 1
    assert (times / 600 - 0.5).abs().max() < 0.09  # 4 standard deviations of a share of 600


def test_seed_alone_decides() -> None:
    data = make(torch.arange(100) % 3, 3)
    before = torch.get_rng_state()
    once = subset(data, 30, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(once.ids, subset(data, 30, seed=5).ids)
    assert not torch.equal(once.ids, subset(data, 30, seed=6).ids)


def test_subsets_of_one_seed_are_nested() -> None:
    data = make(torch.arange(100) % 3, 3)
    small, large = subset(data, 20, seed=5).ids, subset(data, 50, seed=5).ids
    assert torch.isin(small, large).all()


def test_fractions_use_every_sample() -> None:
    data = make([0] * 101, 1)
    parts = split(data, [1 / 3, 1 / 3, 1 / 3], seed=0)
    assert sum(map(len, parts)) == 101


def test_rank_in_class_counts_earlier_equals() -> None:
    labels = torch.randint(0, 5, (80,))
    expected = [int((labels[:i] == labels[i]).sum()) for i in range(80)]
    assert rank_in_class(labels, 5).tolist() == expected


@pytest.mark.parametrize("sizes", [[8, 3], [-1, 4], [0.5, 0.6], [-0.5, 0.5], [0.5, 3]])
def test_impossible_sizes_are_refused(sizes: list[float]) -> None:
    with pytest.raises(DataError, match=r"sizes must be|cannot cut 10 samples into parts of"):
        split(make([0] * 10, 1), sizes, seed=0)


def test_first() -> None:
    assert first(make([0] * 10, 1), 3).ids.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="has 10 samples: 11 were asked for"):
        first(make([0] * 10, 1), 11)
