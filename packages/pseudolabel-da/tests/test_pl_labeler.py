"""The algorithm as a whole: traces of a scripted model, edge cases, resuming, and learning."""

from __future__ import annotations

import copy
import math
import warnings
from types import SimpleNamespace
from typing import Any

import pseudolabel_da as pl
import pytest
import torch
from pseudolabel_da.networks import SmallCNN
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

quiet = pytest.mark.filterwarnings("ignore::pseudolabel_da.alerts.PseudoLabelWarning")


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


def blobs(n: int, shift: float, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes of points in eight dimensions; the target is moved and stretched."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(5)) * 1.5
    return centres[labels] * (1 + shift) + torch.randn(n, 8, generator=generator) * 0.8 + shift, labels


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


S, V, T = blobs(90, 0.0, 0), blobs(30, 0.0, 1), blobs(61, 0.3, 2)
EASY = {"selector": pl.FixedThreshold(0.5), "period": 2, "batch_size": 20}


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert all(torch.equal(a[name], b[name]) for name in a)


VARIANTS = [
    {},
    {"order": "official"},
    {"passes": "paired", "batch_norm": "target", "relabel": True, "selector": pl.ClassBalancedShare((0.3, 0.6))},
    {"passes": "mixed", "oversample": "replacement"},
    {"batch_norm": "freeze_on_pseudo", "checkpoint": "information_maximization"},
    {"replay": "always_labeled_target", "calibrate": True, "reset_optimizer": False},
]


@quiet
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_resuming_is_exact(options: dict) -> None:
    noise = {"augment": lambda x, g: x + torch.randn(x.shape, generator=g) * 0.1}
    first = pl.IncrementalPseudoLabeler(network(), **EASY | noise | options)
    states: dict[int, Any] = {}
    labeled = (T[0][:4], T[1][:4])

    def keep(labeler: pl.IncrementalPseudoLabeler) -> None:
        states[labeler.progress.epoch] = labeler.state_dict()

    first.pretrain(S, V, epochs=2, labeled_target=labeled)
    result = first.fit(S, V, T[0][4:], epochs=6, labeled_target=labeled, on_epoch=keep)
    second = pl.IncrementalPseudoLabeler(network(7), **EASY | noise | options)
    second.load_state_dict(states[3])
    torch.randn(5)  # the global generator may stand anywhere
    again = second.fit(S, V, T[0][4:], epochs=6, labeled_target=labeled)
    assert_same(weights(first.model), weights(second.model))
    assert [r.as_dict() for r in again.periods] == [r.as_dict() for r in result.periods]
    assert torch.equal(again.rows, result.rows)
    assert again.epochs == result.epochs


def test_pretraining_resumes_exactly_and_the_state_needs_no_pickle(tmp_path: Any) -> None:
    first, second = (pl.IncrementalPseudoLabeler(network(i), **EASY) for i in range(2))

    def save(labeler: pl.IncrementalPseudoLabeler) -> None:
        if labeler.progress.pretrain_epoch == 2:
            torch.save(labeler.state_dict(), tmp_path / "state.pt")

    scores = first.pretrain(S, V, epochs=5, on_epoch=save)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second.pretrain(S, V, epochs=5) == scores[2:]
    assert_same(weights(first.model), weights(second.model))


@quiet
def test_true_labels_change_nothing_but_the_records() -> None:
    outcomes = []
    for truth in (None, T[1], torch.randint(-5, 99, T[1].shape)):
        labeler = pl.IncrementalPseudoLabeler(network(), **EASY)
        labeler.pretrain(S, V, epochs=1)
        result = labeler.fit(S, V, T[0], epochs=4, target_labels=truth)
        outcomes.append((weights(labeler.model), result.periods[-1].wrong_total, result.labels))
    for other in outcomes[1:]:
        assert_same(outcomes[0][0], other[0])
        assert torch.equal(outcomes[0][2], other[2])
    assert outcomes[0][1] is None
    held = outcomes[1]
    truth_of = pl.IncrementalPseudoLabeler(network(), **EASY)
    truth_of.pretrain(S, V, epochs=1)
    rows = truth_of.fit(S, V, T[0], epochs=4).rows
    assert held[1] == int((held[2] != T[1][rows]).sum())


class Pairs(Dataset):
    """A map-style dataset; without labels it gives inputs alone."""

    def __init__(self, inputs: Tensor, labels: Tensor | None = None) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> Any:
        return self.inputs[i] if self.labels is None else (self.inputs[i], int(self.labels[i]))


@quiet
@pytest.mark.parametrize(
    ("source", "target"),
    [
        (Pairs(*S), Pairs(T[0])),
        (TensorDataset(*S), TensorDataset(T[0], torch.zeros(61))),
        (SimpleNamespace(images=S[0], labels=S[1]), SimpleNamespace(images=T[0], labels=None)),
        (list(S), (T[0], torch.full((61,), 99))),
    ],
    ids=["datasets", "tensor datasets", "image sets", "pairs"],
)
def test_every_kind_of_data_gives_the_same_model(source: Any, target: Any) -> None:
    ours, theirs = (pl.IncrementalPseudoLabeler(network(), **EASY) for _ in range(2))
    for labeler, s, t in ((ours, S, T[0]), (theirs, source, target)):
        labeler.pretrain(s, V, epochs=1, labeled_target=Pairs(*V) if isinstance(s, Pairs) else V)
        labeler.fit(s, V, t, epochs=3)
    assert_same(weights(ours.model), weights(theirs.model))


class Wrapped(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner, self.kind = network(), kind

    def forward(self, x: Tensor) -> Any:
        logits = self.inner(x)
        return {"logits": logits} if self.kind == "dict" else (logits, x)


@quiet
@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_models_that_return_more_than_logits(kind: str) -> None:
    with pytest.raises(ValueError, match="logits_fn"):
        pl.IncrementalPseudoLabeler(Wrapped(kind)).fit(S, V, T[0], epochs=1)
    plain = pl.IncrementalPseudoLabeler(network(), **EASY)
    plain.fit(S, V, T[0], epochs=2)
    labeler = pl.IncrementalPseudoLabeler(
        Wrapped(kind), logits_fn=lambda out: out["logits"] if kind == "dict" else out[0], **EASY
    )
    labeler.fit(S, V, T[0], epochs=2)
    assert_same(weights(plain.model), weights(labeler.model.inner))


@quiet
def test_a_binary_model_needs_an_adapter() -> None:
    model = nn.Sequential(nn.Linear(8, 1))
    binary = (S[0], S[1] % 2)
    with pytest.raises(ValueError, match="binary_logits"):
        pl.IncrementalPseudoLabeler(model).fit(binary, None, T[0], epochs=1, accuracy=0.9)
    labeler = pl.IncrementalPseudoLabeler(model, logits_fn=pl.binary_logits, **EASY)
    labeler.fit(binary, None, T[0], epochs=1)
    with torch.no_grad():
        wanted = torch.sigmoid(model(T[0]))[:, 0]
    torch.testing.assert_close(labeler.probabilities(T[0])[:, 1], wanted)


def test_what_is_refused() -> None:
    labeler = pl.IncrementalPseudoLabeler(network())
    nothing = (S[0][:0], S[1][:0])
    with pytest.raises(ValueError, match="source_train is empty"):
        labeler.fit(nothing, V, T[0], epochs=1)
    with pytest.raises(ValueError, match="source_val"):
        pl.IncrementalPseudoLabeler(network()).fit(S, nothing, T[0], epochs=1)
    with pytest.raises(ValueError, match="target_labels must have shape"):
        labeler.fit(S, V, T[0], epochs=1, target_labels=T[1][:5])
    with pytest.raises(ValueError, match="cannot read samples"):
        labeler.fit(S, V, 5, epochs=1)
    with pytest.raises(ValueError, match="need labels"):
        labeler.pretrain(S[0], None, epochs=1)
    with pytest.raises(ValueError, match="must make one"):
        pl.IncrementalPseudoLabeler(network(), optimizer=torch.optim.SGD(network().parameters(), 0.1))
    with pytest.raises(ValueError, match="source_accuracy"):
        pl.IncrementalPseudoLabeler(network(), checkpoint="source_accuracy").fit(S, None, T[0], epochs=1)
    with pytest.raises(TypeError, match="rho"):
        pl.IncrementalPseudoLabeler(network(), rho=3)


@quiet
def test_pool_of_another_size_and_pretraining_too_late_are_refused() -> None:
    labeler = pl.IncrementalPseudoLabeler(network(), **EASY)
    labeler.fit(S, V, T[0], epochs=1)
    with pytest.raises(ValueError, match="61 target samples, got 60"):
        labeler.fit(S, V, T[0][:60], epochs=2)
    with pytest.raises(ValueError, match="before fit"):
        labeler.pretrain(S, V, epochs=1)


@quiet
def test_an_empty_target_and_a_given_accuracy() -> None:
    result = pl.IncrementalPseudoLabeler(network(), on_empty="source_epoch").fit(S, V, T[0][:0], epochs=2)
    assert result.periods == []
    assert all(e["steps"] for e in result.epochs)
    result = pl.IncrementalPseudoLabeler(network()).fit(S, None, T[0], epochs=1, accuracy=0.9)
    assert result.periods[0].source_accuracy == 0.9


@quiet
@pytest.mark.parametrize("target", [1, 21])
def test_a_batch_of_one_trains_under_batch_norm(target: int) -> None:
    labeler = pl.IncrementalPseudoLabeler(network(), pl.FixedThreshold(0.0), batch_size=20)
    result = labeler.fit(S, V, T[0][:target], epochs=2)
    assert result.rows.numel() == target
    assert [e["steps"] for e in result.epochs] == [2, 2]
    assert all(p.isfinite().all() for p in labeler.model.parameters())


@quiet
@pytest.mark.parametrize("oversample", ["clip", "replacement"])
@pytest.mark.parametrize("passes", ["separate", "paired"])
def test_more_pseudo_labels_than_source_rows(oversample: str, passes: str) -> None:
    few = (S[0][:6], S[1][:6])
    labeler = pl.IncrementalPseudoLabeler(
        network(), pl.FixedThreshold(0.0), batch_size=20, oversample=oversample, passes=passes
    )
    result = labeler.fit(few, V, T[0], epochs=1)
    pseudo_steps = 3  # 20, 20 and 21 rows
    source_steps = {"clip": 1, "replacement": 3}[oversample]
    assert result.epochs[0]["steps"] == pseudo_steps + (source_steps if passes == "separate" else 0)


class Sick(nn.Module):
    """Gives NaN for inputs above a bound."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).masked_fill(x > 5, math.nan)


def test_nan_logits_are_counted_and_left_out() -> None:
    target = torch.tensor([[-3.0], [9.0], [3.0], [7.0]])
    model = Sick()
    model.layer.weight.data, model.layer.bias.data = torch.tensor([[-1.0], [1.0]]), torch.zeros(2)
    labeler = pl.IncrementalPseudoLabeler(model, pl.FixedThreshold(0.0))
    with pytest.warns(pl.CollapseWarning, match="2 of 4 samples have logits that are not numbers"):
        result = labeler.fit((torch.zeros(4, 1), torch.tensor([0, 1, 0, 1])), None, target, epochs=1)
    assert result.periods[0].invalid == 2
    assert result.rows.tolist() == [0, 2]
    assert all(p.isfinite().all() for p in labeler.model.parameters())


@quiet
def test_modes_of_the_model_come_back() -> None:
    model = network()
    model.train()
    model[1].eval()
    modes = [m.training for m in model.modules()]
    labeler = pl.IncrementalPseudoLabeler(model, **EASY)
    labeler.pretrain(S, V, epochs=1)
    labeler.fit(S, V, T[0], epochs=1)
    labeler.probabilities(T[0])
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(RuntimeError):
        labeler.probabilities(torch.rand(3, 5))
    assert [m.training for m in model.modules()] == modes


@quiet
@pytest.mark.parametrize("how", ["model", "autocast", "float64"])
def test_other_precisions(how: str) -> None:
    model = network()
    model = model.bfloat16() if how == "model" else model.double() if how == "float64" else model
    labeler = pl.IncrementalPseudoLabeler(model, autocast=torch.bfloat16 if how == "autocast" else None, **EASY)
    labeler.pretrain(S, V, epochs=2)
    result = labeler.fit(S, V, T[0], epochs=2)
    assert result.rows.numel() > 0
    assert labeler.probabilities(T[0]).dtype == (torch.float64 if how == "float64" else torch.float32)
    assert math.isfinite(result.epochs[-1]["loss"])


@quiet
def test_batch_norm_options() -> None:
    x = torch.randn(40, 8) + 3
    source, target = (S[0], S[1]), x
    means = {}
    for option in ("shared", "freeze_on_pseudo", "target"):
        model = network()
        labeler = pl.IncrementalPseudoLabeler(model, pl.FixedThreshold(0.0), batch_norm=option, eval_batch=40)
        model[1].momentum = 0.5
        labeler.fit(source, V, target, epochs=3)
        with torch.no_grad():
            hidden = model[0](target).mean(0), model[0](S[0]).mean(0)
        statistics = model[1].running_mean
        means[option] = [float((statistics - mean).abs().mean()) for mean in hidden]
    assert means["target"][0] < 1e-5  # exactly those of the target
    assert means["shared"][0] < means["shared"][1]  # the last pass was over the pseudo-labels
    assert means["freeze_on_pseudo"][1] < means["freeze_on_pseudo"][0]


@quiet
def test_domain_weights_scale_the_loss() -> None:
    def loss(**options: Any) -> float:
        rule = pl.FixedThreshold(0.0)
        model = network()
        model[3].p = 0.0
        made = pl.IncrementalPseudoLabeler(model, rule, relabel=True, passes="paired", batch_size=70, **options)
        return made.fit(S, V, T[0], epochs=1).epochs[0]["loss"]

    whole, quarter = loss(), loss(pseudo_weight=lambda epoch: 0.25)
    assert loss(weight_fn=lambda x: torch.ones(len(x))) == pytest.approx(whole, rel=1e-5)
    assert loss(weight_fn=lambda x: torch.full((len(x),), 0.25)) == pytest.approx(quarter, rel=1e-5)
    assert quarter < whole
    with pytest.raises(ValueError, match="reduction='none'"):
        loss(criterion=nn.CrossEntropyLoss(), weight_fn=lambda x: x[:, 0].abs() + 0.1)


@quiet
def test_optimizer_is_reset_only_if_asked() -> None:
    made: list[int] = []

    def factory(parameters: Any) -> torch.optim.Optimizer:
        made.append(1)
        return torch.optim.Adam(parameters, 1e-3)

    for reset, wanted in ((True, 2), (False, 1)):
        made.clear()
        labeler = pl.IncrementalPseudoLabeler(network(), optimizer=factory, reset_optimizer=reset, **EASY)
        labeler.pretrain(S, V, epochs=1)
        labeler.fit(S, V, T[0], epochs=1)
        assert len(made) == wanted


def test_pretraining_keeps_the_best_epoch_and_stops_early() -> None:
    labeler = pl.IncrementalPseudoLabeler(network(), optimizer=lambda p: torch.optim.SGD(p, lr=0.5), batch_size=8)
    seen: list[dict[str, Tensor]] = []
    scores = labeler.pretrain(S, V, epochs=50, patience=3, on_epoch=lambda made: seen.append(weights(made.model)))
    best = max(range(len(scores)), key=lambda i: scores[i])
    assert len(scores) == best + 4
    assert_same(weights(labeler.model), seen[best])


@quiet
@pytest.mark.parametrize("name", ["paper", "official", "balanced"])
def test_presets_run_and_options_override(name: str) -> None:
    labeler = getattr(pl.IncrementalPseudoLabeler, name)(
        network(), augment=None, transform=lambda x: x.float(), period=1
    )
    labeler.pretrain(S, V, epochs=1)
    result = labeler.fit(S, V, T[0], epochs=2)
    assert len(result.periods) == 2
    assert labeler.settings.period == 1
    assert result.summary().count("\n") == 1


def shapes(n: int, target: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Bars of four directions as bytes; the target's are on bright, coloured noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    canvas = torch.zeros(4, 16, 16)
    canvas[0, 7:9], canvas[1, :, 7:9], canvas[2], canvas[3] = 1, 1, torch.eye(16), torch.eye(16).flip(0)
    images = canvas[labels][:, None].expand(-1, 3, -1, -1).clone()
    images = pl.strong_augment(
        images * 2 - 1, generator, shift=3, invert=0.0, contrast=(1, 1), brightness=(0, 0), blend=0.0
    )
    if target:
        colour = torch.rand(n, 3, 1, 1, generator=generator) * 1.2 - 0.3
        images = (images * 0.35 + colour + torch.randn(images.shape, generator=generator) * 0.25).clamp(-1, 1)
    return ((images + 1) * 127.5).round().byte(), labels


@quiet
def test_adaptation_and_labelled_target_samples_beat_the_source_alone() -> None:
    source, val, target, test = shapes(400, False, 0), shapes(80, False, 1), shapes(400, True, 2), shapes(400, True, 3)
    torch.manual_seed(0)
    start = SmallCNN(3, 16, 4)

    def train(labeled: Any) -> pl.IncrementalPseudoLabeler:
        labeler = pl.IncrementalPseudoLabeler.balanced(copy.deepcopy(start), batch_size=32)
        labeler.pretrain(source, val, epochs=4, labeled_target=labeled)
        return labeler

    def score(labeler: pl.IncrementalPseudoLabeler) -> float:
        return float((labeler.probabilities(test[0]).argmax(1) == test[1]).float().mean())

    few = pl.stratified_sample(target[1], {"per_class": 25}).labeled
    source_only, semi = train(None), train((target[0][few], target[1][few]))
    before = score(source_only)
    assert score(semi) > before + 0.05
    source_only.fit(source, val, target[0], epochs=5)
    assert score(source_only) > before + 0.1
