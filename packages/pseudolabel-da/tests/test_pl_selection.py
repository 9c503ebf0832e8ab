"""Thresholds and rules of selection, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pseudolabel_da as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pseudolabel_da.selection.rule import most_confident
from pseudolabel_da.selection.shares import rank_in_class, select_most_confident


def random_probs(n: int, k: int, seed: int, levels: int = 0) -> torch.Tensor:
    """Probabilities (n, k); with `levels`, of few values, so that ties come up."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    return (logits if not levels else (logits * levels).round() / levels).softmax(1)


cases = st.tuples(st.integers(0, 40), st.integers(2, 6), st.integers(0, 10**6), st.sampled_from([0, 1]))


@pytest.mark.parametrize("rho", [2.4, 3.0, 4.0])
@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.986, 1.0])
def test_threshold_is_a_sigmoid(rho: float, accuracy: float) -> None:
    wanted = 1 / (1 + math.exp(-rho * accuracy))
    assert float(pl.adaptive_threshold(accuracy, rho)) == pytest.approx(wanted, rel=1e-15)
    assert float(pl.adaptive_threshold(torch.tensor(accuracy), rho)) == pytest.approx(wanted, rel=1e-6)


def test_the_usual_steepness_is_3() -> None:
    assert float(pl.adaptive_threshold(1.0)) == pytest.approx(0.9525741268)


def test_threshold_warns_and_refuses() -> None:
    with pytest.warns(UserWarning, match="rho should be above 0"):
        assert float(pl.adaptive_threshold(0.5, -1.0)) < 0.5
    with pytest.raises(ValueError, match="share in"):
        pl.adaptive_threshold(97.0)


@pytest.mark.parametrize(("smoothing", "classes"), [(0.0, 10), (0.05, 10), (0.15, 10), (0.15, 31), (0.4, 2)])
def test_ceiling_is_where_smoothed_cross_entropy_ends(smoothing: float, classes: int) -> None:
    logits = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0]), label_smoothing=smoothing)
        loss.backward()
        return loss

    optimizer.step(closure)
    reached = float(logits.detach().softmax(1).max())
    assert reached == pytest.approx(pl.confidence_ceiling(smoothing, classes), abs=1e-5)


@pytest.mark.parametrize("arguments", [(1.2, 10), (-0.1, 10), (0.1, 1)])
def test_ceiling_refuses(arguments: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        pl.confidence_ceiling(*arguments)


@settings(max_examples=40, deadline=None)
@given(cases, st.floats(0, 1))
def test_select_above_is_strict(case: tuple[int, int, int, int], threshold: float) -> None:
    probs = random_probs(*case)
    selection = pl.select_above(probs, threshold)
    for row, chosen, label, confidence in zip(probs.tolist(), *(part.tolist() for part in selection[:3]), strict=True):
        assert confidence == max(row)
        assert row[label] == max(row)
        assert chosen == (max(row) > threshold)


def test_a_confidence_at_the_threshold_is_not_selected() -> None:
    probs = torch.tensor([[0.75, 0.25], [0.7500001, 0.2499999]])
    assert pl.select_above(probs, 0.75).mask.tolist() == [False, True]
    assert pl.FixedThreshold(0.75).select(probs).mask.tolist() == [False, True]


def test_a_confidence_at_the_threshold_teaches_no_class() -> None:
    probs = torch.tensor([[0.75, 0.25], [0.875, 0.125], [0.25, 0.75]])
    assert pl.flexible_thresholds(probs, 0.75, "linear").tolist() == [0.75 * 0.5, 0.0]


@pytest.mark.parametrize("selector", [pl.ClassBalancedShare((0.25, 1.0)), pl.TopShare((0.25, 1.0))])
def test_the_first_share_is_that_of_the_first_period(selector: pl.Selector) -> None:
    probs = random_probs(40, 4, 0)
    assert selector.select(probs).mask.tolist() == selector.select(probs, period=0).mask.tolist()
    assert selector.select(probs).mask.sum() < selector.select(probs, period=1).mask.sum()


def test_a_threshold_for_each_class() -> None:
    probs = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    assert pl.select_above(probs, torch.tensor([0.9, 0.5])).mask.tolist() == [False, True]
    with pytest.raises(ValueError, match="threshold must be"):
        pl.select_above(probs, torch.rand(3))


@pytest.mark.parametrize(
    "selector",
    [
        pl.FixedThreshold(0.0),
        pl.AdaptiveThreshold(),
        pl.ClassBalancedShare((1.0,)),
        pl.ClassBalancedShare((1.0,), prior="predicted"),
        pl.TopShare((1.0,)),
        pl.FlexThreshold(floor=0.0),
        pl.ICANSelector(),
    ],
)
def test_what_is_no_number_is_never_selected(selector: pl.Selector) -> None:
    probs = torch.tensor([[0.99, 0.01], [math.nan, math.nan], [math.nan, 1.0], [0.01, 0.99]])
    selection = selector.select(probs, accuracy=0.5, period=0)
    assert selection.mask.tolist() == [True, False, False, True]
    assert selection.confidence.tolist()[1:3] == [-math.inf] * 2
    assert selection.labels.tolist() == [0, 0, 0, 1]
    empty = selector.select(probs[:0], accuracy=0.5, period=0)
    assert empty.mask.shape == (0,)


def test_selectors_refuse_one_class_and_no_accuracy() -> None:
    with pytest.raises(ValueError, match="binary_logits"):
        pl.FixedThreshold().select(torch.ones(3, 1))
    with pytest.raises(ValueError, match="source_val"):
        pl.AdaptiveThreshold().select(torch.rand(3, 2))
    with pytest.raises(ValueError, match="floating"):
        most_confident(torch.ones(3, 2, dtype=torch.long))


def test_ceiling_aware_threshold() -> None:
    selection = pl.AdaptiveThreshold(3.0, ceiling_aware=True).select(torch.rand(4, 10), accuracy=0.9, ceiling=0.865)
    assert float(selection.threshold) == pytest.approx(0.865 / (1 + math.exp(-2.7)))


def loop_top(probs: list[list[float]], quota: list[int]) -> list[bool]:
    """The quota[k] most confident of each class, by sorting each in a loop; earlier rows first among equals."""
    mask = [False] * len(probs)
    for k, most in enumerate(quota):
        own = [(-max(row), i) for i, row in enumerate(probs) if row.index(max(row)) == k]
        for _, i in sorted(own)[:most]:
            mask[i] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(cases, st.lists(st.integers(0, 12), min_size=6, max_size=6))
def test_select_top_equals_a_loop(case: tuple[int, int, int, int], quota: list[int]) -> None:
    probs = random_probs(*case)
    quota = quota[: probs.shape[1]]
    selection = pl.select_top(probs, torch.tensor(quota))
    assert selection.mask.tolist() == loop_top(probs.tolist(), quota)
    for k, lowest in enumerate(selection.threshold.tolist()):
        taken = selection.confidence[selection.mask & (selection.labels == k)].tolist()
        assert lowest == (min(taken) if taken else math.inf)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_rank_in_class_counts_the_better(case: tuple[int, int, int, int]) -> None:
    labels, confidence = most_confident(random_probs(*case))
    ranks = rank_in_class(labels, confidence, case[1]).tolist()
    pairs = list(zip(labels.tolist(), confidence.tolist(), strict=True))
    for i, (label, sure) in enumerate(pairs):
        better = sum(k == label and (c > sure or (c == sure and j < i)) for j, (k, c) in enumerate(pairs))
        assert ranks[i] == better


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(0, 7))
def test_balanced_share_equals_a_loop(case: tuple[int, int, int, int], period: int) -> None:
    probs, k = random_probs(*case), case[1]
    shares = (0.2, 0.4, 0.6, 0.8, 1.0)
    share = shares[min(period, 4)]
    even = pl.ClassBalancedShare().select(probs, period=period)
    quota = [max(math.floor(share * len(probs) / k + 1e-9), 1)] * k  # a small pool gives at least one a class
    assert even.mask.tolist() == loop_top(probs.tolist(), quota)
    fractions = pl.ClassBalancedShare(prior="predicted").select(probs, period=period)
    sizes = torch.bincount(probs.argmax(1), minlength=k).tolist()
    assert fractions.mask.tolist() == loop_top(
        probs.tolist(), [max(math.floor(share * n + 1e-9), n > 0) for n in sizes]
    )


def test_a_share_of_a_hundred_over_ten_classes_is_not_rounded_away() -> None:
    probs = torch.eye(10).repeat(10, 1)
    for period, each in enumerate((2, 4, 6, 8, 10)):
        selection = pl.ClassBalancedShare().select(probs, period=period)
        assert torch.bincount(selection.labels[selection.mask], minlength=10).tolist() == [each] * 10


def test_balanced_share_follows_a_prior_and_what_is_taken() -> None:
    probs = torch.eye(2).repeat_interleave(50, 0)
    prior = pl.ClassBalancedShare((0.5,), prior=(3, 1)).select(probs)
    assert torch.bincount(prior.labels[prior.mask]).tolist() == [37, 12]
    taken = torch.tensor([20, 0])
    more = pl.ClassBalancedShare((0.5,)).select(probs[20:], taken=taken)  # half of 100 samples, 20 of them taken
    assert torch.bincount(more.labels[more.mask]).tolist() == [5, 25]
    top = pl.TopShare((0.5,)).select(probs[20:], taken=taken)
    assert int(top.mask.sum()) == 30


@pytest.mark.parametrize("options", [{"shares": ()}, {"shares": (0.0,)}, {"shares": (1.1,)}, {"prior": "even"}])
def test_balanced_share_refuses(options: dict) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        pl.ClassBalancedShare(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pl.FlexThreshold(threshold=7.0), "threshold and floor must be in"),
        (lambda: pl.FlexThreshold(floor=9.0), "threshold and floor must be in"),
        (lambda: pl.FlexThreshold(threshold=math.nan), "threshold and floor must be in"),
        (lambda: pl.FlexThreshold(mapping="foo"), "unknown mapping 'foo'"),
        (lambda: pl.AdaptiveThreshold(rho=math.nan), "rho must be a finite number"),
        (lambda: pl.ICANSelector(rho=math.inf), "rho must be a finite number"),
    ],
)
def test_selectors_refuse_when_they_are_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_balanced_share_refuses_a_prior_of_another_size() -> None:
    with pytest.raises(ValueError, match="one a class"):
        pl.ClassBalancedShare(prior=(0.5, 0.5)).select(torch.rand(4, 3))


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(-2, 50))
def test_select_most_confident_equals_a_sort(case: tuple[int, int, int, int], count: int) -> None:
    probs = random_probs(*case)
    order = sorted(range(len(probs)), key=lambda i: (-float(probs[i].max()), i))
    wanted = set(order[: max(count, 0)])
    assert set(select_most_confident(probs, count).mask.nonzero()[:, 0].tolist()) == wanted


@settings(max_examples=40, deadline=None)
@given(cases, st.floats(0.3, 0.99), st.sampled_from(["convex", "linear"]))
def test_flexible_thresholds_equal_a_loop(case: tuple[int, int, int, int], threshold: float, mapping: str) -> None:
    probs, k = random_probs(*case), case[1]
    learned = [0] * k
    for row in probs.tolist():
        learned[row.index(max(row))] += max(row) > threshold
    most = max(*learned, len(probs) - sum(learned))
    beta = [n / max(most, 1) for n in learned]
    wanted = [(b / (2 - b) if mapping == "convex" else b) * threshold for b in beta]
    assert pl.flexible_thresholds(probs, threshold, mapping).tolist() == pytest.approx(wanted, rel=1e-6)
    mask = pl.FlexThreshold(threshold, mapping, floor=0.4).select(probs).mask.tolist()
    tops = [(max(row), row.index(max(row))) for row in probs.tolist()]
    assert mask == [c > max(pl.flexible_thresholds(probs, threshold, mapping)[y].item(), 0.4) for c, y in tops]


def test_ican_takes_the_confident_of_the_right_domain() -> None:
    probs = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.7, 0.3], [0.1, 0.9]])
    weight = torch.tensor([0.9, 0.2, 0.9, 0.9])
    selection = pl.ICANSelector(rho=2.4, bias=0.5).select(probs, accuracy=0.9, weight=weight)
    assert float(selection.threshold) == pytest.approx(1 / (1 + math.exp(-2.16)))
    assert selection.mask.tolist() == [True, False, False, True]
    assert pl.ICANSelector(rho=2.4).select(probs, accuracy=0.9).mask.tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="weight must have shape"):
        pl.ICANSelector().select(probs, accuracy=0.9, weight=weight[:2])


@pytest.mark.parametrize(("t", "wanted"), [(0, 0.0), (100, 0.0), (350, 1.5), (600, 3.0), (601, 3.0), (1e9, 3.0)])
def test_lee_weight(t: float, wanted: float) -> None:
    assert pl.lee_weight(t) == wanted
    assert pl.LeeSchedule()(t) == wanted


def test_lee_weight_without_a_ramp_is_a_step() -> None:
    assert [pl.lee_weight(t, 5, 5, 2.0) for t in (4, 5, 6)] == [0.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="end must not lie before start"):
        pl.LeeSchedule(6, 5)


@given(st.floats(0, 1))
def test_reversal_strength(progress: float) -> None:
    assert pl.reversal_strength(progress) == pytest.approx(2 / (1 + math.exp(-10 * progress)) - 1, abs=1e-12)
