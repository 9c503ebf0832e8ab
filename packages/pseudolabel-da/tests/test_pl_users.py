"""What users bring: models of their own, frozen layers, other ranges, a second target, known class shares."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pseudolabel_da as pl
import pytest
import torch
from pseudolabel_da.algorithm.periods import advice_when_stalled, selector_prior
from pseudolabel_da.networks import SmallCNN
from pseudolabel_da.reading.reader import Reader, data_range, is_channels_last, scale_images
from pseudolabel_da.reading.samples import TensorSamples, as_samples
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

quiet = pytest.mark.filterwarnings("ignore::pseudolabel_da.diagnosis.alerts.PseudoLabelWarning")
Y = torch.arange(48) % 3
X = torch.randn(48, 3, 12, 12, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
V = torch.eye(3)[Y] * 3 + torch.randn(48, 3, generator=torch.Generator().manual_seed(1)) / 2


class Views(nn.Module):
    """Flattens by view, which takes contiguous inputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 5), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.view(-1, 3 * 12 * 12)
        return self.head(F.max_pool2d(self.conv(x), 2).view(x.size(0), -1))


@quiet
@pytest.mark.parametrize("stored", [X, X.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), (X * 127).byte()])
@pytest.mark.parametrize("name", ["paper", "official", "balanced"])
def test_a_model_that_views_its_inputs(stored: Tensor, name: str) -> None:
    labeler = getattr(pl.IncrementalPseudoLabeler, name)(Views(), period=1)
    labeler.pretrain((stored, Y), epochs=1)
    labeler.fit((stored, Y), (stored, Y), stored, epochs=1)
    assert labeler.probabilities(stored).shape == (48, 3)


def test_inputs_have_the_layout_of_the_weights() -> None:
    for model, last in ((SmallCNN(), False), (SmallCNN().to(memory_format=torch.channels_last), True)):
        reader = Reader(model, torch.device("cpu"), torch.float32, scale_images)
        assert is_channels_last(model) is last
        prepared = reader.prepare(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
        assert prepared.is_contiguous(memory_format=torch.channels_last) is last
    assert not is_channels_last(nn.Conv2d(3, 4, 1))  # both layouts at once
    assert not is_channels_last(nn.Linear(3, 4))


def frozen_network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers, nn.Dropout(0.5))


@quiet
@pytest.mark.parametrize("options", [{}, {"method": "pseudo", "passes": "mixed"}, {"batch_norm": "freeze_on_pseudo"}])
@pytest.mark.parametrize("name", ["paper", "balanced"])
def test_frozen_layers_stay_frozen(name: str, options: dict[str, Any]) -> None:
    model = frozen_network()
    model[1].eval()
    before = {key: value.clone() for key, value in model[1].state_dict().items()}
    labeler = getattr(pl.IncrementalPseudoLabeler, name)(model, **options)
    labeler.pretrain((X, Y), epochs=1)
    labeler.fit((X, Y), (X, Y), X + 1, epochs=2)
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(model[1].state_dict()[key], before[key])
    assert not torch.equal(model[1].weight, before["weight"])  # only its statistics are frozen
    assert [module.training for module in model] == [True, False, *[True] * 5]


@quiet
def test_a_model_loaded_in_evaluation_mode_is_trained_whole() -> None:
    model = frozen_network().eval()
    before = model[1].running_mean.clone()
    pl.IncrementalPseudoLabeler(model).pretrain((X, Y), epochs=1)
    assert not torch.equal(model[1].running_mean, before)
    assert not any(module.training for module in model)


def test_frozen_layers_stay_so_in_the_losses_of_the_rivals() -> None:
    model = SmallCNN(3, 12, 3)
    model.layers[1].eval()
    before = model.layers[1].running_mean.clone()
    labeler = pl.IncrementalPseudoLabeler(model, method="coral", batch_size=16)
    labeler.pretrain((X, Y), epochs=1)
    labeler.fit((X, Y), None, X, epochs=1)
    assert torch.equal(model.layers[1].running_mean, before)


@pytest.mark.parametrize(
    ("inputs", "expected", "warned"),
    [
        (X, (-1.0, 1.0), False),
        (X.abs(), (0.0, 1.0), False),
        (X * 2.5, (-2.5, 2.5), True),
        (X.abs() * 255, (0.0, 255.0), True),
        (torch.zeros(4, 3, 8, 8) + 7, (6.0, 8.0), True),
        ((X.abs() * 255).byte(), (-1.0, 1.0), False),
    ],
    ids=["signed", "unsigned", "standardised", "bytes as floats", "constant", "bytes"],
)
def test_the_range_of_the_data(inputs: Tensor, expected: tuple[float, float], warned: bool) -> None:
    reader = Reader(SmallCNN(), torch.device("cpu"), torch.float32, scale_images)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = data_range(reader, TensorSamples(inputs), TensorSamples(inputs[:0]))
    assert found == pytest.approx(expected, abs=1.0 if max(expected) == 255 else 1e-6)
    assert bool(caught) is warned


def test_inputs_outside_of_the_range_are_augmented_within_their_own() -> None:
    wide = X * 2.6
    seen: list[Tensor] = []

    class Watch(Views):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                seen.append(x.detach())
            return super().forward(x)

    labeler = pl.IncrementalPseudoLabeler.balanced(Watch(), period=1, shares=(1.0,))
    labeler.pretrain((wide, Y), epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        labeler.fit((wide, Y), None, wide, epochs=1)
    assert sum("outside" in str(warning.message) for warning in caught) == 1
    assert max(float(batch.abs().max()) for batch in seen) == pytest.approx(2.6, abs=1e-4)
    assert max(float((batch.abs() > 1.01).float().mean()) for batch in seen) > 0.1  # not clamped to [-1, 1]
    with pytest.warns(UserWarning, match=r"clamped to \[-1, 1\]"):
        pl.strong_augment(wide)
    pl.strong_augment(wide, value_range=(-2.6, 2.6))


def moved(labeler: pl.IncrementalPseudoLabeler, target: Any) -> pl.FitResult:
    return labeler.fit((V, Y), None, target, epochs=4)


@quiet
@pytest.mark.parametrize("kind", ["tensor", "dataset"])
def test_another_target_is_refused_until_reset(kind: str) -> None:
    def of(x: Tensor) -> Any:
        return x if kind == "tensor" else [(row, None) for row in x]

    labeler = pl.IncrementalPseudoLabeler.balanced(nn.Linear(3, 3), augment=None)
    labeler.pretrain((V, Y), epochs=20)
    first = moved(labeler, of(V + 0.2))
    again = moved(labeler, of(V + 0.2))  # the same one: a run that has ended hands back what it found
    assert torch.equal(first.labels, again.labels)
    other = V.flip(0) * 2
    with pytest.raises(ValueError, match=r"began with other target samples, also 48: .* call reset\(\)"):
        moved(labeler, of(other))
    resumed = pl.IncrementalPseudoLabeler.balanced(nn.Linear(3, 3), augment=None)
    resumed.load_state_dict(labeler.state_dict())
    with pytest.raises(ValueError, match="other target samples"):
        moved(resumed, of(other))
    before = labeler.model.weight.clone()
    labeler.reset()
    second = moved(labeler, of(other))
    assert not torch.equal(before, labeler.model.weight)
    assert len(second.periods) == 2
    assert not torch.equal(second.labels, first.labels)


@quiet
def test_another_source_is_refused_until_reset_and_random_datasets_are_left_alone() -> None:
    labeler = pl.IncrementalPseudoLabeler.balanced(nn.Linear(3, 3), augment=None)
    labeler.pretrain((V, Y), epochs=1)
    with pytest.raises(ValueError, match="began with other source samples"):
        labeler.pretrain((V + 1, Y), epochs=2)
    labeler.reset()
    labeler.pretrain((V + 1, Y), epochs=1)

    class Random(Dataset):
        def __len__(self) -> int:
            return 30

        def __getitem__(self, i: int) -> Any:
            return torch.rand(3), i % 3

    labeler.reset()
    for epochs in (1, 2):
        labeler.pretrain(Random(), epochs=epochs)
        assert labeler.progress.pretrain_epoch == epochs


@pytest.mark.parametrize("rule", ["warn", "stop", "rebalance"])
def test_the_verdict_knows_the_prior_of_the_selector(rule: str) -> None:
    prior = (0.9, 0.07, 0.03)
    truth = torch.repeat_interleave(torch.arange(3), torch.tensor([270, 21, 9]))
    probs = F.one_hot(truth, 3).float() * 0.9 + 0.1 / 3
    settings = pl.Settings(on_collapse=rule, relabel=True)
    selector = pl.ClassBalancedShare((0.5, 1.0), prior=prior)
    record = pl.advance(pl.PseudoLabelPool(300, 3), selector, probs, settings, pl.PeriodContext(0))
    assert (record.verdict, record.remedy) == (pl.Verdict.HEALTHY, "")
    assert record.prior == pytest.approx(prior)
    assert record.class_histogram == [135, 10, 4]
    even = pl.ClassBalancedShare((1.0,), prior="predicted")
    with pytest.warns(pl.CollapseWarning, match="largest class"):
        crowded = pl.advance(pl.PseudoLabelPool(300, 3), even, probs, settings, pl.PeriodContext(0))
    assert crowded.verdict is pl.Verdict.FEW_CLASSES


def test_a_set_unlike_its_prior_is_few_classes_and_rebalancing_follows_the_prior() -> None:
    class Crowd:
        """Takes class 0 alone, though it was told that there are three."""

        prior = (0.2, 0.3, 0.5)

        def select(self, probs: Tensor, **context: Any) -> pl.Selection:
            labels = probs.argmax(1)
            return pl.Selection(labels == 0, labels, probs.amax(1), torch.tensor(0.0), by_rank=True)

    probs = F.one_hot(torch.arange(90) % 3, 3).float()
    with pytest.warns(pl.CollapseWarning):
        record = pl.advance(
            pl.PseudoLabelPool(90, 3), Crowd(), probs, pl.Settings(on_collapse="rebalance"), pl.PeriodContext(0)
        )
    assert (record.verdict, record.remedy) == (pl.Verdict.FEW_CLASSES, "rebalanced")
    assert record.class_histogram == [6, 9, 15]


def test_priors_that_are_no_shares_are_none() -> None:
    assert selector_prior(pl.ClassBalancedShare(), 3) is None
    assert selector_prior(pl.ClassBalancedShare(prior="predicted"), 3) is None
    assert selector_prior(pl.FixedThreshold(), 3) is None
    assert selector_prior(pl.ClassBalancedShare(prior=[2, 1, 1]), 3) == [0.5, 0.25, 0.25]


def test_small_pools_give_at_least_one_a_class() -> None:
    probs = F.one_hot(torch.arange(20) % 10, 10).float()
    assert int(pl.ClassBalancedShare().select(probs).mask.sum()) == 10
    assert int(pl.ClassBalancedShare(prior="predicted").select(probs[:7]).mask.sum()) == 7
    none_of_two = pl.ClassBalancedShare(prior=[1] * 8 + [0, 0]).select(probs)
    assert torch.bincount(none_of_two.labels[none_of_two.mask], minlength=10).tolist() == [1] * 8 + [0, 0]
    assert int(pl.TopShare((0.01,)).select(probs).mask.sum()) == 1


@pytest.mark.parametrize(
    ("selector", "said", "unsaid"),
    [
        (pl.AdaptiveThreshold(), "ceiling_aware", "shares"),
        (pl.AdaptiveThreshold(ceiling_aware=True), "Lower rho", "ceiling_aware"),
        (pl.ICANSelector(), "Lower rho", "ceiling_aware"),
        (pl.FixedThreshold(0.999), "Lower its threshold", "rho"),
        (pl.FlexThreshold(0.999), "Lower its threshold", "rho"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_remedies_are_of_the_selector_in_use(selector: Any, said: str, unsaid: str) -> None:
    probs = torch.full((12, 3), 1 / 3)
    with pytest.warns(pl.StalledWarning) as caught:
        pl.advance(pl.PseudoLabelPool(12, 3), selector, probs, pl.Settings(), pl.PeriodContext(0, 0.9))
    text = next(str(warning.message) for warning in caught if warning.category is pl.StalledWarning)
    assert said in text
    assert unsaid not in text
    assert "ClassBalancedShare" in text


def test_selection_by_rank_has_its_own_remedy() -> None:
    probs = torch.full((12, 3), float("nan"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = pl.advance(
            pl.PseudoLabelPool(12, 3), pl.ClassBalancedShare(), probs, pl.Settings(), pl.PeriodContext(0)
        )
    stalled = next(str(warning.message) for warning in caught if warning.category is pl.StalledWarning)
    assert "No logit is finite" in stalled
    assert "rho" not in stalled
    assert "ClassBalancedShare" not in advice_when_stalled(pl.ClassBalancedShare(), record)


class Items(Dataset):
    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> Any:
        return self.make(i)


LABELLED = {
    "pixel_values": lambda i: {"pixel_values": V[i], "label": int(Y[i])},
    "image and labels": lambda i: {"image": V[i].numpy(), "labels": Y[i], "idx": i},
    "triple": lambda i: (V[i], int(Y[i]), i),
    "numpy label": lambda i: (V[i], np.int32(Y[i])),
    "list": lambda i: [V[i].tolist(), int(Y[i])],
}


@pytest.mark.parametrize("name", [name for name in LABELLED if name != "list"])
def test_items_of_datasets(name: str) -> None:
    inputs, labels = next(iter(as_samples(Items(LABELLED[name])).stream([torch.tensor([1, 5])])))
    torch.testing.assert_close(inputs, V[[1, 5]])
    assert labels is not None
    assert labels.dtype == torch.int64
    assert labels.tolist() == Y[[1, 5]].tolist()


@pytest.mark.parametrize(
    "make", [lambda i: (V[i], None), lambda i: {"x": V[i]}, lambda i: V[i], lambda i: (V[i], "cat")]
)
def test_items_without_labels(make: Any) -> None:
    inputs, labels = next(iter(as_samples(Items(make)).stream([torch.tensor([1, 5])])))
    torch.testing.assert_close(inputs, V[[1, 5]])
    assert labels is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda i: {"picture": V[i]}, "a sample has picture, expected the input as pixel_values, image"),
        (lambda i: (object(), 1), "cannot make a batch of the samples' inputs"),
        (lambda i: (torch.zeros(i + 1), 1), r"cannot make a batch of the samples' inputs \(torch.Tensor of shape"),
        (lambda i: ("cat.png", 1), "a sample's input is builtins.str, expected a tensor"),
        (lambda i: (V[i].tolist(), 1), "a sample's input is builtins.list, expected a tensor"),
    ],
)
def test_items_that_cannot_be_read_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(iter(as_samples(Items(make)).stream([torch.tensor([1, 5])])))


def test_dicts_and_lists_of_everything() -> None:
    for data in ({"x": V, "y": Y}, {"images": V.numpy(), "labels": Y.tolist()}, (V.tolist(), Y.tolist())):
        samples = as_samples(data)
        assert isinstance(samples, TensorSamples)
        assert samples.labels is not None
        assert samples.labels.tolist() == Y.tolist()
        torch.testing.assert_close(samples.inputs, V)
    with pytest.raises(ValueError, match="expected the input as"):
        as_samples({"a": V})


@quiet
@pytest.mark.parametrize("truth", [Y.numpy(), Y.tolist(), Y.int()], ids=["array", "list", "int32"])
def test_true_labels_of_any_kind(truth: Any) -> None:
    labeler = pl.IncrementalPseudoLabeler.balanced(nn.Linear(3, 3), augment=None)
    result = labeler.fit((V, Y), None, V, epochs=1, target_labels=truth)
    assert result.periods[0].wrong == int((result.labels != Y[result.rows]).sum())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y + 1, r"in 0\.\.2 for a model of 3 outputs, got 1\.\.3: subtract 1"),
        (Y * 2, r"got 0\.\.4: or give the model 5 outputs"),
        (Y - 1, r"got -1\.\.1: leave out what has no label"),
        (Y.float(), "must be whole numbers from 0 to 2, got torch.float32"),
    ],
)
def test_labels_outside_of_the_classes_are_named(labels: Tensor, message: str) -> None:
    plain = pl.IncrementalPseudoLabeler(nn.Linear(3, 3))
    for given in ((V, labels), [(v, label) for v, label in zip(V, labels, strict=True)]):
        with pytest.raises(ValueError, match=message):
            plain.pretrain(given, epochs=1)
    with pytest.raises(ValueError, match=message):
        plain.fit((V, labels), None, V, epochs=1, accuracy=0.9)
    with pytest.raises(ValueError, match=f"validation set.*{message}"):
        plain.pretrain((V, Y), (V, labels), epochs=1)
    with pytest.raises(ValueError, match="labels of the source"):
        plain.pretrain((V, Y), epochs=1, labeled_target=(V, labels))
    if not labels.is_floating_point():
        with pytest.raises(ValueError, match=f"validation set.*{message}"):
            plain.pretrain((V, Y), [(v, label) for v, label in zip(V, labels, strict=True)], epochs=1)
