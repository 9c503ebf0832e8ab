"""The pool, the plan of an epoch, and the diagnostics of a period."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections import Counter
from dataclasses import replace

import pseudolabel_da as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pseudolabel_da.algorithm.periods import stop_reason
from pseudolabel_da.algorithm.planning import draw_replay, split_batches
from pseudolabel_da.diagnosis.diagnostics import class_spread, marginal_drift
from pseudolabel_da.seeds import derive_seed, forked_rng, make_generator


def selection(mask: list[bool], labels: list[int]) -> pl.Selection:
    confidence = torch.linspace(0.6, 0.9, len(mask))
    return pl.Selection(torch.tensor(mask), torch.tensor(labels), confidence, torch.tensor(0.5))


def test_pool_takes_in_selections_and_never_relabels() -> None:
    pool = pl.PseudoLabelPool(5, 3)
    pool.update(selection([True, False, False, True, False], [2, 1, 0, 0, 1]), torch.arange(5))
    rows = pool.remaining()
    assert rows.tolist() == [1, 2, 4]
    pool.update(selection([False, True, False], [1, 1, 1]), rows)
    assert pool.labels.tolist() == [2, -1, 1, 0, -1]
    assert pool.given.tolist() == [0, -1, 1, 0, -1]
    assert pool.rows().tolist() == [0, 2, 3]
    assert pool.histogram().tolist() == [1, 1, 1]
    assert pool.confidence[2].item() == pytest.approx(0.75)
    assert int(pool.periods) == 2
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        pool.update(selection([True], [0]), pool.remaining())


def test_pool_rebuilds_with_weights_and_travels() -> None:
    pool = pl.PseudoLabelPool(3, 2)
    pool.update(selection([True, True, False], [0, 0, 0]), weight=torch.tensor([0.2, 0.4, 0.6]))
    pool.update(selection([False, True, True], [1, 1, 1]), weight=torch.tensor([0.3, 0.5, 0.7]))
    assert pool.labels.tolist() == [-1, 1, 1]
    assert pool.weight.tolist() == pytest.approx([1.0, 0.5, 0.7])
    other = pl.PseudoLabelPool(3, 2)
    other.load_state_dict(pool.state_dict())
    assert other.labels.tolist() == [-1, 1, 1]


def test_bookkeeping_copies_no_sample_to_python() -> None:
    pool = pl.PseudoLabelPool(50_000, 10)
    labels = torch.randint(10, (50_000,))
    chosen = pl.Selection(torch.rand(50_000) > 0.5, labels, torch.rand(50_000), torch.tensor(0.5))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        pool.update(chosen, torch.arange(50_000))
        pool.histogram()
    assert sum(event.count for event in profile.key_averages()) < 200


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 12))
def test_batches_keep_every_row_and_none_is_alone(n: int, size: int) -> None:
    batches = split_batches(torch.arange(n), size)
    assert [row for batch in batches for row in batch.tolist()] == list(range(n))
    if size > 1 and n > 1:
        assert all(2 <= len(batch) <= size + 1 for batch in batches)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 30),
    st.integers(1, 20),
    st.integers(0, 6),
    st.sampled_from(["union", "source", "always_labeled_target"]),
    st.sampled_from(["clip", "replacement"]),
)
def test_replay_draws_what_it_says(count: int, source: int, labeled: int, replay: str, oversample: str) -> None:
    rows = draw_replay(count, source, labeled, make_generator(0), replay=replay, oversample=oversample)
    times = Counter(rows.tolist())
    kept = labeled if replay == "always_labeled_target" else 0
    size = source + (labeled if replay == "union" else 0)
    most = max(count - kept, 0) if oversample == "replacement" else min(max(count - kept, 0), size)
    assert len(rows) == (most + kept if count else 0)
    assert all(0 <= row < source + (0 if replay == "source" else labeled) for row in times)
    if kept and count:
        assert all(times[row] == 1 for row in range(source, source + labeled))
    drawn = [n for row, n in times.items() if not (kept and row >= source)]
    if drawn:
        assert max(drawn) <= (1 if oversample == "clip" else -(-most // size))


def as_lists(steps: list) -> list:
    return [[None if rows is None else rows.tolist() for rows in step] for step in steps]


@pytest.mark.parametrize("passes", ["separate", "paired", "mixed"])
@pytest.mark.parametrize(("pseudo", "source"), [(0, 10), (1, 10), (17, 10), (17, 40), (33, 1)])
def test_plan_is_a_pure_function_and_partitions(passes: str, pseudo: int, source: int) -> None:
    rows = torch.arange(100, 100 + pseudo)
    options = {"seed": 3, "batch_size": 8, "passes": passes}
    steps = pl.plan_epoch(rows, source, epoch=2, **options)
    again = pl.plan_epoch(rows, source, epoch=2, **options)
    assert as_lists(steps) == as_lists(again)
    targets = [r for step in steps if step.pseudo is not None for r in step.pseudo.tolist()]
    sources = [r for step in steps if step.source is not None for r in step.source.tolist()]
    assert sorted(targets) == rows.tolist()
    if passes == "separate":
        assert len(sources) == len(set(sources)) == min(pseudo, source)
        kinds = [step.pseudo is None for step in steps]
        assert kinds == sorted(kinds, reverse=True)  # all source steps come first
    elif steps:
        assert all(step.source is not None and len(step.source) >= 2 for step in steps)
        assert all(step.pseudo is not None for step in steps)
    other = pl.plan_epoch(rows, source, epoch=3, **options)
    if pseudo > 10:
        assert as_lists(other) != as_lists(steps)  # a fresh draw every epoch


def test_seeds_are_stable_and_the_global_generator_is_left_alone() -> None:
    digest = hashlib.sha256(b"(7, 'order', 2)").digest()
    assert derive_seed(7, "order", 2) == sum(byte << 8 * i for i, byte in enumerate(digest[:8])) // 2
    assert derive_seed(7, "order", 2) != derive_seed(7, "order", 3)
    before = torch.get_rng_state()
    with forked_rng(torch.device("cpu"), 1, "epoch", 0):
        first = torch.rand(3)
    with forked_rng(torch.device("cpu"), 1, "epoch", 0):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


def test_class_spread() -> None:
    even = class_spread(torch.tensor([5, 5, 5, 5]))
    assert even == pytest.approx((1.0, 4.0, 0.25, 0), rel=1e-6)
    one = class_spread(torch.tensor([0, 7, 0]))
    assert one == pytest.approx((0.0, 1.0, 1.0, 2))
    assert class_spread(torch.zeros(3, dtype=torch.long)) == (0.0, 0.0, 0.0, 3)
    mixed = class_spread(torch.tensor([1, 3]))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert mixed == pytest.approx((entropy / math.log(2), math.exp(entropy), 0.75, 0), rel=1e-6)


def test_drift_is_the_divergence_from_the_last_period() -> None:
    now, before = torch.tensor([0.2, 0.8]).double(), torch.tensor([0.5, 0.5]).double()
    assert marginal_drift(now, torch.zeros(2).double()) is None
    assert marginal_drift(now, before) == pytest.approx(0.2 * math.log(0.4) + 0.8 * math.log(1.6))
    assert marginal_drift(now, now) == pytest.approx(0.0, abs=1e-12)


def record(**values: object) -> pl.PeriodRecord:
    even = {"class_histogram": [10] * 10, "entropy": 1.0, "effective_classes": 10.0, "max_share": 0.1}
    plain = {"epoch": 0, "period": 0, "pool": 1000, "candidates": 1000, "selected": 100, "total": 100, "share": 0.1}
    rest = {"source_accuracy": 0.9, "threshold": 0.9, "ceiling": 0.95, "max_confidence": 1.0, "invalid": 0}
    return pl.PeriodRecord(**even | plain | rest | {"empty_classes": 0, "flip_rate": None, "drift": None} | values)


@pytest.mark.parametrize(
    ("now", "before", "wanted"),
    [
        ({}, [], "healthy"),
        ({"share": 0.8, "flip_rate": 0.3}, [], "liberal"),
        ({"share": 0.8, "flip_rate": 0.3}, [{"flip_rate": 0.2}], "liberal"),
        ({"share": 0.8, "flip_rate": 0.3}, [{"flip_rate": 0.4}], "healthy"),
        ({"share": 0.4, "flip_rate": 0.3}, [], "healthy"),
        ({"share": 0.8, "flip_rate": 0.05}, [], "healthy"),
        ({"max_share": 0.6, "effective_classes": 5.0}, [], "few_classes"),
        ({"max_share": 0.4, "effective_classes": 3.0}, [], "few_classes"),
        ({"max_share": 1.0, "effective_classes": 1.0, "total": 4}, [], "healthy"),
        ({"threshold": 0.952, "ceiling": 0.865}, [], "hyper_conservative"),
        ({"threshold": 0.952, "ceiling": 0.865, "by_rank": True}, [], "healthy"),
        ({"selected": 0}, [], "healthy"),
        ({"selected": 0, "by_rank": True}, [{"selected": 0, "by_rank": True}], "hyper_conservative"),
        ({"selected": 0}, [{"selected": 0}], "hyper_conservative"),
        ({"selected": 0, "total": 1000, "share": 1.0}, [{"selected": 0}], "healthy"),
    ],
)
def test_verdicts(now: dict, before: list[dict], wanted: str) -> None:
    assert pl.diagnose(record(**now), [record(**values) for values in before]) == pl.Verdict(wanted)


def test_two_even_classes_are_not_few() -> None:
    two = record(class_histogram=[60, 40], max_share=0.6, effective_classes=1.96)
    assert pl.diagnose(two) is pl.Verdict.HEALTHY


def test_records_survive_json() -> None:
    one = record(threshold=[0.5, None], verdict=pl.Verdict.LIBERAL)
    assert pl.PeriodRecord.from_dict(json.loads(json.dumps(one.as_dict()))) == one


def one_hot(labels: list[int], classes: int, top: float = 0.99) -> torch.Tensor:
    rest = (1 - top) / (classes - 1)
    return torch.full((len(labels), classes), rest).scatter_(1, torch.tensor(labels)[:, None], top)


def test_advance_measures_flips_drift_and_truth() -> None:
    pool, options = pl.PseudoLabelPool(6, 3), pl.Settings()
    truth = torch.tensor([0, 1, 2, 0, 1, 1])
    probs = one_hot([0, 1, 2, 1, 0, 0], 3)
    probs[4:] = 1 / 3
    first = pl.advance(pool, pl.FixedThreshold(0.9), probs, options, pl.PeriodContext(0, 0.9, truth=truth))
    assert (first.selected, first.total, first.wrong, first.wrong_total) == (4, 4, 1, 1)
    assert first.class_histogram == [1, 2, 1]
    assert first.class_precision == [1.0, 0.5, 1.0]
    assert first.flip_rate is None
    assert first.drift is None
    context = pl.PeriodContext(20, 0.9, history=(first,), truth=truth)
    with pytest.warns(pl.CollapseWarning, match="100% of the pool .* contradicts 25%"):
        second = pl.advance(pool, pl.FixedThreshold(0.9), one_hot([0, 1, 1, 1, 1, 2], 3), options, context)
    assert (second.selected, second.total, second.candidates) == (2, 6, 2)
    assert (second.wrong, second.wrong_total) == (1, 2)
    assert second.flip_rate == 0.25  # the third label, 2, is now contradicted
    assert pool.labels.tolist() == [0, 1, 2, 1, 1, 2]
    means = [p.double().mean(0) for p in (one_hot([0, 1, 1, 1, 1, 2], 3), probs)]
    assert second.drift == pytest.approx(float((means[0] * (means[0] / means[1]).log()).sum()), rel=1e-5)


def test_advance_counts_what_is_no_number_and_warns() -> None:
    probs = one_hot([0, 1, 0, 1], 2)
    probs[1] = math.nan
    with pytest.warns(pl.CollapseWarning, match="1 of 4 samples have logits that are not numbers"):
        made = pl.advance(pl.PseudoLabelPool(4, 2), pl.FixedThreshold(0.9), probs, pl.Settings(), pl.PeriodContext(0))
    assert (made.invalid, made.selected) == (1, 3)


def test_stalling_warns_and_relaxing_takes_the_best() -> None:
    probs = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5]])
    arguments = pl.FixedThreshold(0.9), probs
    with pytest.warns(pl.StalledWarning, match=r"selected none of 3 .* threshold 0.89"):
        stalled = pl.advance(pl.PseudoLabelPool(3, 2), *arguments, pl.Settings(), pl.PeriodContext(0))
    assert (stalled.selected, stalled.remedy) == (0, "")
    pool = pl.PseudoLabelPool(3, 2)
    relaxed = pl.advance(pool, *arguments, pl.Settings(on_empty="relax"), pl.PeriodContext(0))
    assert (relaxed.selected, relaxed.remedy) == (1, "relaxed")
    assert pool.labels.tolist() == [-1, 1, -1]


def test_few_classes_are_rebalanced() -> None:
    labels = [0] * 30 + [1] * 3 + [2] * 3 + [3] * 4
    probs, options = one_hot(labels, 4), pl.Settings()
    with pytest.warns(pl.CollapseWarning, match="largest class holds 75%"):
        pl.advance(pl.PseudoLabelPool(40, 4), pl.FixedThreshold(0.9), probs, options, pl.PeriodContext(0))
    pool = pl.PseudoLabelPool(40, 4)
    with pytest.warns(pl.CollapseWarning, match="rebalanced"):
        made = pl.advance(
            pool, pl.FixedThreshold(0.9), probs, replace(options, on_collapse="rebalance"), pl.PeriodContext(0)
        )
    assert made.class_histogram == pool.histogram().tolist() == [10, 3, 3, 4]
    assert (made.verdict, made.remedy) == (pl.Verdict.FEW_CLASSES, "rebalanced")


@pytest.mark.parametrize("selector", [pl.TopShare((0.5,)), pl.ClassBalancedShare((0.5,))], ids=["top", "balanced"])
def test_shares_know_no_ceiling(selector: pl.Selector) -> None:
    """Confidence above the ceiling is overshoot, and no reason to stop, where nothing was asked of it."""
    pool, options = pl.PseudoLabelPool(100, 10), pl.Settings(on_collapse="stop")
    labels = [i % 10 for i in range(50)]
    probs = torch.cat([one_hot(labels, 10, 0.98), one_hot(labels, 10, 0.9)])
    made = pl.advance(pool, selector, probs, options, pl.PeriodContext(0, ceiling=0.955))
    assert made.selected == 50
    assert made.by_rank
    assert made.verdict is pl.Verdict.HEALTHY
    assert stop_reason(made, 0, options) == ""
    pool = pl.PseudoLabelPool(100, 10)
    with pytest.warns(pl.CollapseWarning, match="caps confidence near 0.955"):
        asked = pl.advance(pool, pl.FixedThreshold(0.96), probs, options, pl.PeriodContext(0, ceiling=0.955))
    assert asked.selected == 50
    assert not asked.by_rank
    assert asked.verdict is pl.Verdict.HYPER_CONSERVATIVE


def test_an_exhausted_pool_selects_nothing_in_silence() -> None:
    pool = pl.PseudoLabelPool(2, 2)
    first = pl.advance(pool, pl.FixedThreshold(0.5), one_hot([0, 1], 2), pl.Settings(), pl.PeriodContext(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        context = pl.PeriodContext(1, history=(first,))
        second = pl.advance(pool, pl.FixedThreshold(0.5), one_hot([1, 1], 2), pl.Settings(), context)
    assert (second.candidates, second.selected, second.total) == (0, 0, 2)
    assert pool.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"order": "mine"},
        {"passes": "both"},
        {"period": 0},
        {"label_smoothing": 1.5},
        {"order": "official", "passes": "paired"},
        {"passes": "mixed", "batch_norm": "freeze_on_pseudo"},
        {"patience_periods": 0},
        {"patience_periods": -3},
    ],
)
def test_settings_refuse(options: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|needs|cannot"):
        pl.Settings(**options)
