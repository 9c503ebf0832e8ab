"""The algorithm as a whole: edge cases, kinds of data, and resuming."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pseudolabel_da as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

quiet = pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.PseudoLabelWarning")


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
    with pytest.raises(TypeError, match="roh"):
        pl.IncrementalPseudoLabeler(network(), roh=3)


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
