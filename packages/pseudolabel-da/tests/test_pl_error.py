"""Wrong labels and class shares, estimated without a true label."""

from __future__ import annotations

import math

import numpy as np
import pseudolabel_da as pl
import pytest
import scipy.stats
import torch
from pseudolabel_da.diagnosis.error import (
    LINES,
    STRETCH,
    Doubts,
    Opening,
    Opinion,
    class_means,
    said_wrong,
    signals_against,
)
from pseudolabel_da.networks import SmallCNN
from torch.nn import functional as F


def logits_of(labels: torch.Tensor, wrong: float, seed: int, classes: int = 4) -> torch.Tensor:
    """Logits that are right but for a share."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.where(torch.rand(len(labels), generator=generator) < wrong, (labels + 1) % classes, labels)
    return F.one_hot(shown, classes) * 4 + torch.randn(len(labels), classes, generator=generator)


@pytest.mark.parametrize("wrong", [0.0, 0.13, 0.5, 1.0])
def test_as_many_lie_below_the_threshold_as_are_wrong(wrong: float) -> None:
    labels = torch.arange(200) % 4
    probs = logits_of(labels, wrong, 0).softmax(1)
    probs = probs if wrong < 1 else probs.roll(1, 1)
    mistakes = int((probs.argmax(1) != labels).sum())
    assert int((probs.amax(1) < pl.atc_threshold(probs, labels)).sum()) == mistakes
    with pytest.raises(ValueError, match="N > 0"):
        pl.atc_threshold(probs, labels[:3])


def test_disagreement_counts() -> None:
    a, b = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 1, 1])
    assert pl.disagreement(a, b) == 0.25
    assert pl.disagreement(F.one_hot(a, 3).float(), b) == 0.25
    for pair in ((a, b[:2]), (a[:0], b[:0])):
        with pytest.raises(ValueError, match="same samples"):
            pl.disagreement(*pair)


def test_signals_equal_a_loop() -> None:
    source, target = torch.arange(60) % 4, torch.arange(90) % 4
    there, here = logits_of(source, 0.1, 1), logits_of(target, 0.3, 2)
    labels = torch.where(torch.arange(90) < 70, here.argmax(1), -1)
    jittered, other = logits_of(target, 0.4, 3).argmax(1), logits_of(target, 0.2, 4).argmax(1)
    abroad = logits_of(source, 0.2, 5).argmax(1)
    opening = logits_of(target, 0.4, 6)
    second = Opinion([target * 0, other.to(torch.uint8)], abroad)
    doubts = Doubts(here, jittered, source, Opening(opening, there), second, period=7)  # beyond the second's last one
    found = signals_against(labels, doubts)
    held = [i for i in range(90) if labels[i] >= 0]
    a, b = opening.log_softmax(1).numpy(), there.log_softmax(1).numpy()
    centres = [np.mean([a[i] for i in held if labels[i] == k], 0) for k in range(4)]
    back = [int(np.argmin([np.linalg.norm(point - centre) for centre in centres])) for point in b]
    assert found["jittered"] == pytest.approx(sum(int(jittered[i] != labels[i]) for i in held) / len(held))
    assert found["start"] == pytest.approx(1 - np.mean([np.exp(a[i][labels[i]]) for i in held]))
    assert found["reverse"] == pytest.approx(sum(back[j] != int(source[j]) for j in range(60)) / 60)
    two = sum(int(other[i] != labels[i]) for i in held) / len(held)
    apart, wrong = ((there.argmax(1) != right).double().mean().item() for right in (abroad, source))
    normal = scipy.stats.norm
    line = normal.ppf(1 - two) + normal.ppf(1 - wrong) - normal.ppf(1 - apart)
    assert found["two"] == pytest.approx(two)
    assert found["agreement"] == pytest.approx(1 - normal.cdf(line))
    assert signals_against(torch.full((90,), -1), doubts) == {}
    assert signals_against(labels, Doubts(here)) == {}
    assert signals_against(labels, Doubts(here, opening=Opening(opening, None))).keys() == {"start"}


def test_equal_agreement_means_equal_error_and_less_of_it_more() -> None:
    assert pl.error_by_agreement(0.2, 0.2, 0.3) == pytest.approx(0.3)
    assert pl.error_by_agreement(0.3, 0.2, 0.3) > 0.3 > pl.error_by_agreement(0.1, 0.2, 0.3)
    assert 0 < pl.error_by_agreement(0.0, 1.0, 0.0) < pl.error_by_agreement(1.0, 0.0, 1.0) < 1


def test_a_class_without_points_is_never_the_nearest() -> None:
    means = class_means(torch.ones(3, 2), torch.tensor([0, 0, 2]), 3)
    assert torch.cdist(torch.ones(1, 2), means).argmin(1).item() in (0, 2)
    assert bool(means[1].min() > 1e5)


def test_the_estimate_rises_with_the_signals_and_stays_a_share() -> None:
    values = [pl.estimate_wrong({"start": v, "reverse": v, "two": 0.9}) for v in (0.0, 0.2, 0.4, 1.0)]
    shares = [value.share for value in values if value is not None]

    def expected(value: float) -> float:
        lines = [slope * value + offset for slope, offset in (LINES["start"], LINES["reverse"])]
        return STRETCH[0] * sum(lines) / 2 + STRETCH[1]

    assert shares == pytest.approx([0.0, expected(0.2), expected(0.4), 1.0])
    assert all(value is not None and 0 <= value.low <= value.share <= value.high <= 1 for value in values)
    assert pl.estimate_wrong({}) is None
    assert pl.estimate_wrong({"jittered": 0.5}) is None


def unlike(seed: int, other: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of seven patterns in noise; the target's are the same, a little brighter, or others."""
    g = torch.Generator().manual_seed(seed)
    own, theirs = torch.rand(2, 7, 3, 16, 16, generator=g)
    theirs = theirs if other else (own + 0.1).clamp(0, 1)
    ys, yt = torch.arange(420) % 7, torch.arange(350) % 7
    xs = (own[ys] + torch.randn(420, 3, 16, 16, generator=g) * 0.3).clamp(-1, 1)
    xt = (theirs[yt] + torch.randn(350, 3, 16, 16, generator=g) * 0.3).clamp(-1, 1)
    return xs, ys, xt, yt


@pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.PseudoLabelWarning")
@pytest.mark.parametrize("other", [True, False], ids=["other classes", "the same classes"])
def test_the_verdict_says_so_where_labels_are_wrong_and_only_there(other: bool) -> None:
    xs, ys, xt, yt = unlike(0, other)
    torch.manual_seed(0)
    labeler = pl.IncrementalPseudoLabeler.balanced(SmallCNN(3, 16, 7))
    labeler.pretrain((xs[:350], ys[:350]), epochs=6)
    result = labeler.fit((xs[:350], ys[:350]), (xs[350:], ys[350:]), xt, epochs=4, target_labels=yt)
    for record in result.periods:
        assert record.wrong_total is not None
        assert record.wrong_interval is not None
        assert record.wrong_estimate is not None
        truly = record.wrong_total / record.total
        assert (truly > 0.3) is other
        assert (record.verdict is pl.Verdict.HEALTHY) is not other
        assert record.wrong_interval[0] <= record.wrong_estimate <= record.wrong_interval[1]
        assert "estimated to be wrong" in said_wrong(record)


def test_em_finds_the_shares_of_calibrated_predictions() -> None:
    generator = torch.Generator().manual_seed(0)
    shares, prior = torch.tensor([0.7, 0.2, 0.1, 0.0]), torch.full((4,), 0.25)
    labels = torch.multinomial(shares, 20000, replacement=True, generator=generator)
    points = torch.randn(20000, 4, generator=generator) + 2.0 * F.one_hot(labels, 4)
    probs = (2.0 * points).softmax(1)  # the posterior of even classes with unit noise
    found = pl.em_class_shares(probs, prior)
    assert found.sum() == pytest.approx(1)
    assert found.tolist() == pytest.approx(shares.tolist(), abs=0.02)
    assert float((probs.mean(0) - shares).abs().max()) > 0.08  # the mean prediction is further off
    estimate = pl.estimate_class_shares(probs, prior)
    assert bool((estimate.low <= estimate.shares).all())
    assert bool((estimate.shares <= estimate.high).all())
    assert estimate.high[3] < 0.025
    assert pl.em_class_shares(probs[:0], prior).tolist() == prior.tolist()
    with pytest.raises(ValueError, match="expected"):
        pl.em_class_shares(probs, prior[:2])


def test_confusion_gives_the_shares_exactly_where_it_holds() -> None:
    rates = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.0, 0.3, 0.7]], dtype=torch.float64)
    shares = torch.tensor([0.5, 0.1, 0.4], dtype=torch.float64)
    confusion, predicted = rates * torch.tensor([[100.0], [300.0], [200.0]]), 1000 * shares @ rates
    assert pl.bbse_class_shares(confusion, predicted).tolist() == pytest.approx(shares.tolist(), abs=1e-9)
    partial = pl.bbse_class_shares(confusion, torch.tensor([5.0, 0.0, 0.0]))
    assert partial.sum() == pytest.approx(1)
    assert float(partial.min()) >= 0
    for bad in ((confusion[:2], predicted), (confusion * 0, predicted), (confusion, predicted * 0)):
        with pytest.raises(ValueError, match="expected counts"):
            pl.bbse_class_shares(*bad)


def test_doubtful_shares_are_drawn_to_even_ones() -> None:
    shares = torch.tensor([0.6, 0.2, 0.2, 0.0], dtype=torch.float64)  # 0.35 from even ones
    assert torch.equal(pl.cautious_shares(shares, shares), shares)
    near = torch.tensor([0.53, 0.27, 0.2, 0.0], dtype=torch.float64)  # 0.07 away: 0.3 of the way
    assert pl.cautious_shares(shares, near).tolist() == pytest.approx([0.495, 0.215, 0.215, 0.075])
    far = torch.tensor([0.2, 0.6, 0.2, 0.0], dtype=torch.float64)
    assert pl.cautious_shares(shares, far).tolist() == pytest.approx([0.25] * 4)
    even = torch.full((4,), 0.25, dtype=torch.float64)
    assert torch.equal(pl.cautious_shares(even, far), even)


@pytest.mark.parametrize("shares", [[0.25, 0.25, 0.25, 0.25], [0.55, 0.25, 0.15, 0.05]])
def test_what_the_selector_goes_by_is_no_further_off_than_even_classes(shares: list[float]) -> None:
    truth, distances = torch.tensor(shares), []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        source = torch.arange(400) % 4
        labels = torch.multinomial(truth, 400, replacement=True, generator=generator)
        there, here = (
            torch.randn(400, 4, generator=generator) + 2.0 * F.one_hot(known, 4) for known in (source, labels)
        )
        confusion = torch.zeros(4, 4)
        confusion.index_put_((source, there.argmax(1)), torch.ones(400), accumulate=True)
        found = pl.estimate_class_shares((2.0 * here).softmax(1), torch.ones(4), confusion=confusion)
        distances.append(float((found.cautious - truth).abs().sum() / 2))
    away = float((truth - 0.25).abs().sum() / 2)
    assert sum(distances) / 5 < (0.03 if away == 0 else 0.5 * away)


def test_the_selector_follows_estimated_shares() -> None:
    probs = F.one_hot(torch.arange(40) % 4, 4).float()
    rule = pl.ClassBalancedShare((0.5,), prior="estimate")
    shares = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    selection = rule.select(probs, shares=shares)
    assert torch.bincount(selection.labels[selection.mask], minlength=4).tolist() == [10, 5, 5, 0]
    even = rule.select(probs)
    assert torch.bincount(even.labels[even.mask], minlength=4).tolist() == [5, 5, 5, 5]
    with pytest.raises(ValueError, match="'predicted' or 'estimate'"):
        pl.ClassBalancedShare(prior="guess")


def test_an_absent_class_is_called_by_its_name_where_that_is_known() -> None:
    probs = F.one_hot(torch.arange(60) % 2, 3).double() * 0.94 + 0.02
    shares = pl.estimate_class_shares(probs, torch.full((3,), 1 / 3, dtype=torch.float64), 0)
    for names, said in ((("red fox", "cat", "dog"), "class dog seems"), ((), "class 2 seems")):
        context = pl.PeriodContext(0, 0.9, shares=shares, names=names)
        with pytest.warns(pl.CollapseWarning, match=said):
            pl.advance(pl.PseudoLabelPool(60, 3), pl.ClassBalancedShare((1.0,)), probs, pl.Settings(), context)


@pytest.mark.filterwarnings("ignore:.*estimated to be wrong")
def test_a_partial_target_is_seen_and_said_once() -> None:
    torch.manual_seed(0)
    y = torch.arange(200) % 4
    x, target = F.one_hot(y, 4) * 4 + torch.randn(200, 4) / 2, F.one_hot(y % 2, 4) * 4 + torch.randn(200, 4) / 2
    model = torch.nn.Linear(4, 4)
    model.weight.data, model.bias.data = torch.eye(4), torch.zeros(4)
    labeler = pl.IncrementalPseudoLabeler.balanced(model, augment=None)
    with pytest.warns(pl.CollapseWarning, match="class 2, 3 seems to be absent") as caught:
        result = labeler.fit((x, y), (x, y), target, epochs=4)
    assert sum("absent" in str(warning.message) for warning in caught) == 1
    assert result.periods[0].absent() == [2, 3]
    labeler.reset()
    labeler.selector = pl.ClassBalancedShare(prior="estimate")
    spread = labeler.fit((x, y), (x, y), target, epochs=2).periods[0]
    assert spread.class_histogram[:2] == pytest.approx([20, 20], abs=2)
    assert max(spread.class_histogram[2:]) <= 1
    assert spread.prior is not None
    assert math.isclose(sum(spread.prior), 1)


@pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.PseudoLabelWarning")
def test_a_second_network_joins_the_estimate_and_leaves_training_alone() -> None:
    xs, ys, xt, _ = unlike(0, False)
    source, val = (xs[:350], ys[:350]), (xs[350:], ys[350:])

    def labeler(seed: int) -> pl.IncrementalPseudoLabeler:
        torch.manual_seed(seed)
        made = pl.IncrementalPseudoLabeler.balanced(SmallCNN(3, 16, 7), seed=seed, period=1)
        made.pretrain(source, epochs=2)
        return made

    second, alone, first = labeler(1), labeler(0), labeler(0)
    with pytest.raises(ValueError, match="no answers yet"):
        _ = second.opinion
    second.fit(source, val, xt, epochs=2)
    alone.fit(source, val, xt, epochs=2)
    opinion = second.opinion
    records = first.fit(source, val, xt, epochs=2, second=opinion).periods
    assert [r.signals.keys() - {"two", "agreement"} for r in records] == [r.signals.keys() for r in alone.periods]
    held = first.pool
    assert held is not None
    for period, record in enumerate(records):
        assert record.signals.keys() >= {"two", "agreement", "start", "reverse", "jittered"}, period
    last = opinion.at(1)[held.selected]
    assert records[-1].signals["two"] == pl.disagreement(last.long(), held.labels[held.selected])
    for a, b in zip(first.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(a, b)
    restored = pl.IncrementalPseudoLabeler.balanced(SmallCNN(3, 16, 7))
    restored.load_state_dict(second.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(restored.opinion.classes, opinion.classes, strict=True))
    with pytest.raises(ValueError, match="second network is of 350"):
        labeler(0).fit(source, val, xt[:300], epochs=2, second=opinion)
    with pytest.raises(ValueError, match="needs what a second network says"):
        pl.IncrementalPseudoLabeler.balanced(SmallCNN(3, 16, 7), check="two").fit(source, val, xt, epochs=2)


@pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.CollapseWarning")
@pytest.mark.parametrize("validated", [True, False])
def test_without_validation_data_the_target_is_read_once_a_period(validated: bool) -> None:
    data = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2
    seen: list[int] = []

    class Counting(SmallCNN):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if not torch.is_grad_enabled():
                seen.append(len(images))
            return super().forward(images)

    labeler = pl.IncrementalPseudoLabeler(Counting(1, 8, 2), pl.FixedThreshold(0.0), period=1, batch_size=8)
    labeler.fit(data, data if validated else None, data[0], epochs=1)
    # the first image says how many classes there are; then source, target, and the target slightly changed
    assert seen == ([1, 24, 24, 24] if validated else [1, 24])


@pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.CollapseWarning")
def test_the_summary_judges_nothing_without_evidence() -> None:
    labels = torch.arange(60) % 2
    data = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) / 4 + F.one_hot(labels, 2), labels
    said = {}
    for held in (None, data):
        torch.manual_seed(0)
        labeler = pl.IncrementalPseudoLabeler.balanced(torch.nn.Linear(2, 2), augment=None, lr=0.1)
        labeler.pretrain(data, epochs=20)
        said[held is None] = labeler.fit(data, held, data[0], epochs=2).summary()
    assert "healthy" not in said[True]
    assert said[True].endswith("how many labels are wrong is not known: source validation data (source_val) would tell")
    assert "% wrong (" in said[False]
    assert "not known" not in said[False]
