"""Algorithm 1 traced: a model that looks its answers up, so that every label and batch is known beforehand."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pseudolabel_da as pl
import pytest
import torch
from torch import Tensor, nn

quiet = pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.PseudoLabelWarning")


class Script(nn.Module):
    """Looks its answers up: inputs are row numbers, and logits depend on how often the pool was labelled.

    Source rows are 1000 and above, validation rows 2000 and above. It notes every training batch.

    Args:
        plan: For each labelling, the (class, confidence) of each target row.
        right: Validation accuracy at each labelling, in tenths of ten samples of class 0.
    """

    def __init__(self, plan: list[list[tuple[int, float]]], right: list[int]) -> None:
        super().__init__()
        self.plan, self.right = plan, right
        self.bias = nn.Parameter(torch.zeros(()))  # something to optimize
        self.labelings = 0
        self.batches: list[list[int]] = []

    def forward(self, rows: Tensor) -> Tensor:
        ids = rows.long()[:, 0].tolist()
        if self.training:
            self.batches.append(ids)
        probs = torch.full((len(ids), 3), 1 / 3)
        for i, row in enumerate(ids):
            if row >= 2000:
                hit = row - 2000 < self.right[self.labelings]
                probs[i] = torch.tensor([0.8, 0.1, 0.1] if hit else [0.1, 0.8, 0.1])
            elif row < 1000:
                label, sure = self.plan[min(self.labelings, len(self.plan) - 1)][row]
                probs[i] = (1 - sure) / 2
                probs[i, label] = sure
        if not self.training and ids[0] < 1000:  # the pool is labelled in one batch
            self.labelings += 1
        return probs.log() + self.bias


PLAN = [
    [(0, 0.95), (1, 0.7), (2, 0.92), (0, 0.6), (1, 0.5)],
    [(2, 0.99), (1, 0.97), (0, 0.99), (2, 0.85), (1, 0.5)],
    [(1, 0.99), (2, 0.99), (1, 0.99), (2, 0.93), (1, 0.5)],
]


def ids(start: int, count: int) -> Tensor:
    return torch.arange(start, start + count, dtype=torch.float32)[:, None]


def scripted(**options: Any) -> tuple[Script, pl.FitResult]:
    torch.manual_seed(0)
    model = Script(PLAN, [8, 5, 10])
    labeler = pl.IncrementalPseudoLabeler(model, pl.AdaptiveThreshold(3.0), period=2, batch_size=2, **options)
    source, val = (ids(1000, 8), torch.zeros(8).long()), (ids(2000, 10), torch.zeros(10).long())
    return model, labeler.fit(source, val, ids(0, 5), epochs=6)


def threshold(accuracy: float) -> float:
    return 1 / (1 + math.exp(-3 * accuracy))


@quiet
def test_algorithm_1_to_the_letter() -> None:
    model, result = scripted()
    assert [r.epoch for r in result.periods] == [0, 2, 4]  # labels at 0, N and 2N
    assert [r.source_accuracy for r in result.periods] == [0.8, 0.5, 1.0]
    assert [r.threshold for r in result.periods] == pytest.approx([threshold(a) for a in (0.8, 0.5, 1.0)], rel=1e-6)
    # 0.917 takes rows 0 and 2; 0.818 takes 1 and 3 of the rest; 0.953 none of what is left
    assert [r.selected for r in result.periods] == [2, 2, 0]
    assert [r.candidates for r in result.periods] == [5, 3, 1]
    assert result.rows.tolist() == [0, 1, 2, 3]
    assert result.labels.tolist() == [0, 1, 2, 2]  # rows 0 and 2 keep the labels of the first period
    assert result.confidences.tolist() == pytest.approx([0.95, 0.97, 0.92, 0.85])
    assert result.periods[1].flip_rate == 1.0
    pool_sizes = [2, 2, 4, 4, 4, 4]
    epochs = []
    batches = iter(model.batches)
    for size in pool_sizes:
        source = [row for _ in range(size // 2) for row in next(batches)]
        pseudo = [row for _ in range(size // 2) for row in next(batches)]
        assert all(row >= 1000 for row in source)
        assert len(set(source)) == len(source) == size  # |R| = |P|, without replacement, and before P
        assert sorted(pseudo) == ([0, 2] if size == 2 else [0, 1, 2, 3])
        epochs.append(tuple(source))
    assert next(batches, None) is None
    assert len(set(epochs)) > 3  # a fresh draw every epoch


@quiet
def test_the_official_order_trains_on_the_source_before_it_labels() -> None:
    model, result = scripted(order="official")
    assert [r.selected for r in result.periods] == [2, 2, 0]
    kinds = ["source" if batch[0] >= 1000 else "pseudo" for batch in model.batches]
    # epoch 0 has no source pass; in epoch 2 the source pass is still of the old size
    assert (
        kinds
        == ["pseudo", "source", "pseudo", "source", "pseudo", "pseudo"]
        + ["source"] * 2
        + ["pseudo"] * 2
        + [
            *["source"] * 2,
            *["pseudo"] * 2,
        ]
        * 2
    )


@quiet
def test_relabelling_builds_the_set_anew() -> None:
    _, result = scripted(relabel=True)
    assert [r.candidates for r in result.periods] == [5, 5, 5]
    assert [r.selected for r in result.periods] == [2, 4, 3]
    assert result.rows.tolist() == [0, 1, 2]
    assert result.labels.tolist() == [1, 2, 1]


@quiet
@pytest.mark.parametrize("passes", ["paired", "mixed"])
def test_joint_passes_hold_both_kinds_in_every_step(passes: str) -> None:
    model, result = scripted(passes=passes)
    assert [e["steps"] for e in result.epochs] == [1, 1, 2, 2, 2, 2]
    if passes == "mixed":
        assert all(batch[0] >= 1000 > batch[-1] and len(batch) == 4 for batch in model.batches)
    else:
        assert len(model.batches) == 20


def never(**options: Any) -> tuple[Script, pl.FitResult]:
    model = Script([[(0, 0.4)] * 5] * 3, [10] * 3)
    labeler = pl.IncrementalPseudoLabeler(model, period=2, batch_size=2, **options)
    source, val = (ids(1000, 8), torch.zeros(8).long()), (ids(2000, 10), torch.zeros(10).long())
    return model, labeler.fit(source, val, ids(0, 5), epochs=6)


@quiet
def test_without_a_pseudo_label_nothing_is_trained_and_a_warning_says_so() -> None:
    with pytest.warns(pl.StalledWarning, match="selected none of 5 samples") as caught:
        model, result = never()
    assert sum(w.category is pl.StalledWarning for w in caught) == 3
    assert model.batches == []
    assert [e["loss"] for e in result.epochs] == [None] * 6
    assert result.rows.numel() == 0
    assert result.periods[-1].verdict is pl.Verdict.HYPER_CONSERVATIVE


@quiet
def test_what_else_can_happen_without_a_pseudo_label() -> None:
    model, _ = never(on_empty="source_epoch")
    assert sorted(row for batch in model.batches[:4] for row in batch) == list(range(1000, 1008))
    model, result = never(on_empty="stop")
    assert (len(result.epochs), result.stopped) == (1, "no sample has a pseudo-label")
    _, result = never(patience_periods=2)
    assert (len(result.epochs), result.stopped) == (3, "2 periods in a row added nothing")
    _, result = never(on_empty="relax", relax_share=0.4)
    assert [(r.selected, r.remedy) for r in result.periods] == [(2, "relaxed"), (2, "relaxed"), (1, "relaxed")]
    _, result = never(on_collapse="stop")
    assert result.stopped == "the pseudo-labels are hyper_conservative"


@quiet
def test_an_exhausted_pool_goes_on_training() -> None:
    model = Script([[(0, 0.99), (1, 0.99)]] * 9, [10] * 9)
    labeler = pl.IncrementalPseudoLabeler(model, period=1, batch_size=4)
    source, val = (ids(1000, 8), torch.zeros(8).long()), (ids(2000, 10), torch.zeros(10).long())
    with warnings.catch_warnings():
        warnings.simplefilter("error", pl.StalledWarning)
        result = labeler.fit(source, val, ids(0, 2), epochs=4)
    assert [r.candidates for r in result.periods] == [2, 0, 0, 0]
    assert [e["steps"] for e in result.epochs] == [2] * 4
