"""The classifier and augmenter as their users hold them: wrong inputs said in words, modes kept, programs exported."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from flowaug import (
    AffineSpace,
    AugerinoAugmenter,
    AugmentedClassifier,
    ColorSpace,
    CropSpace,
    FlowAugmenter,
    FlowSpec,
    MeanFieldAugmenter,
    PSTNAugmenter,
    flow_aug_loss,
)
from torch import Tensor, nn

X, Y = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])


class AsDict(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x.mean((2, 3))}


def classifier(**options) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)
    )


def model(of: nn.Module | None = None, space: object = None, **options) -> AugmentedClassifier:
    augmenter = FlowAugmenter(space or AffineSpace(("rot",)), flow=FlowSpec(layers=1, width=8))  # type: ignore[arg-type]
    return AugmentedClassifier(of or classifier(), augmenter, n_train=2, n_test=2, **options)


@pytest.mark.parametrize("training", [True, False])
def test_frozen_leaves_every_module_in_its_mode(training: bool) -> None:
    made = model().train(training)
    made.classifier.get_submodule("1").eval()  # a batch norm that its user froze
    modes = [part.training for part in made.modules()]
    held = {name: value.clone() for name, value in made.classifier.state_dict().items()}
    made.frozen = True
    made.loss(X, Y).total.backward()
    made.predict(X)
    assert [part.training for part in made.modules()] == modes
    assert all(torch.equal(value, held[name]) for name, value in made.classifier.state_dict().items())
    with pytest.raises(RuntimeError):  # what fails half way leaves them too
        made.logits(torch.rand(2, 2, 3, 5, 5))
    assert [part.training for part in made.modules()] == modes


def test_batch_norm_learns_again_after_a_frozen_loss() -> None:
    made = model()
    for frozen in (True, False):
        before = made.classifier.get_buffer("1.running_mean").clone()
        made.frozen = frozen
        made.loss(X, Y)
        assert torch.equal(before, made.classifier.get_buffer("1.running_mean")) == frozen


BYTES = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model().loss(BYTES, Y[:2]), "got torch.uint8: convert them"),
        (lambda: model().predict(BYTES), "got torch.uint8: convert them"),
        (lambda: model().plain_loss(BYTES, Y[:2]), "got torch.uint8: convert them"),
        (lambda: model().augmenter.sample(BYTES, 2), "got torch.uint8: convert them"),
        (lambda: model().augmenter.align(BYTES), "got torch.uint8: convert them"),
        (lambda: AugerinoAugmenter(AffineSpace())(BYTES), "got torch.uint8: convert them"),
        (lambda: ColorSpace().warp(BYTES, torch.zeros(2, 1, 4)), "got torch.uint8: convert them"),
        (lambda: model().predict(X[0]), r"got one of \(3, 16, 16\): add a batch"),
        (lambda: model().augmenter.log_prob(X[0], torch.zeros(1, 1, 1)), "add a batch"),
        (lambda: model().augmenter.entropy(X.flatten(1)), r"expected images \(B, C, H, W\), got \(4, 768\)"),
        (lambda: model().predict(X[:, :1]), "expected images of 3 channels"),
        (lambda: PSTNAugmenter(AffineSpace(), in_channels=1).sample(X, 1), "expected images of 1 channels"),
        (lambda: model().predict(X[..., :4, :4]), "at least 8x8 pixels"),
        (lambda: MeanFieldAugmenter(AffineSpace()).sample(X[..., :4], 1), "at least 8x8 pixels"),
        (lambda: model(AsDict()).predict(X), "the classifier gave dict where a tensor of logits"),
        (lambda: model(AsDict()).loss(X, Y), "the classifier gave dict where a tensor of logits"),
        (lambda: model(AsDict()).plain_loss(X, Y), "the classifier gave dict where a tensor of logits"),
        (lambda: model(nn.Conv2d(3, 5, 3)).predict(X), r"must give logits \(B, K\), it gave \(8, 5, 14, 14\)"),
        (lambda: model().loss(X, Y, alpha=-0.1), "alpha must be finite and 0 or more, got -0.1"),
        (lambda: model().loss(X, Y, alpha=float("nan")), "alpha must be finite"),
        (lambda: flow_aug_loss(torch.zeros(2, 1, 3), Y[:2], torch.zeros(2, 1), -1.0), "alpha must be finite"),
        (lambda: model().loss(X, Y.float()), r"class indices \(B,\) must be whole numbers"),
        (lambda: model().loss(X, Y[:3]), "expected logits"),
        (lambda: model().loss(X, torch.rand(4, 7)), r"expected probabilities \(B, 5\)"),
        (lambda: model().augmenter(X, 0), "n must be >= 1, got 0"),
        (lambda: FlowAugmenter(AffineSpace(), nn.Flatten(), context_dim=9).sample(X, 1), r"here \(B, 9\), it gave"),
        (lambda: model(aggregate="mean"), "aggregate must be one of"),
        (lambda: AffineSpace(padding="fill"), "padding must be one of zeros, border, reflection, got 'fill'"),
        (lambda: AffineSpace(mode="cubic"), "mode must be one of bilinear, nearest, bicubic, got 'cubic'"),
        (lambda: CropSpace(mode="cubic"), "mode must be one of"),
        (lambda: CropSpace(padding="wrap"), "padding must be one of"),
        (lambda: AffineSpace(fill=(0.5, float("inf"))), "fill must be one finite number"),
        (lambda: AffineSpace(fill=0.5, padding="border"), "fill stands outside the image with padding zeros alone"),
        (lambda: AffineSpace(fill=(0.1, 0.2)).warp(X, torch.zeros(4, 1, 6)), "one for each of 3 channels"),
        (lambda: AffineSpace(trans_scale=float("nan")), "scales must be positive"),
        (lambda: FlowSpec(scale=0.0), "expected scale > 0"),
        (lambda: FlowSpec(spread=-1.0), "spread >= 0"),
        (lambda: FlowSpec(phase="circle"), "phase must be one of"),
    ],
)
def test_wrong_use_is_said_in_words(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_of_any_whole_type_are_class_indices() -> None:
    losses = [
        float(model_of_seed().loss(X, Y.to(kind)).ce.detach()) for kind in (torch.int64, torch.int32, torch.uint8)
    ]
    assert losses[0] == losses[1] == losses[2]


def model_of_seed() -> AugmentedClassifier:
    torch.manual_seed(3)
    return model()


@pytest.mark.parametrize("base", ["mog", "uniform"])
@pytest.mark.parametrize("space", [AffineSpace(("rot", "tx"), fill=0.3), CropSpace()], ids=["affine", "crop"])
def test_programs_with_an_open_batch_size(base: str, space: AffineSpace | CropSpace) -> None:
    """An exported model takes batches of any size; without randomness it gives what the model gives."""
    augmenter = FlowAugmenter(space, flow=FlowSpec(layers=2, width=8, base=base))
    made = AugmentedClassifier(classifier(), augmenter, n_test=2, include_original=True).eval()
    dynamic = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(made, (X,), dynamic_shapes=dynamic).module()
    for size in (2, 7):
        x = torch.rand(size, 3, 16, 16)
        torch.testing.assert_close(program(x).exp().sum(1), torch.ones(size))

    class Density(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.augmenter = augmenter

        def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
            return self.augmenter.log_prob(x, w), self.augmenter.warp(x, w)

    batch = torch.export.Dim("batch", min=2, max=64)
    given = (X, torch.rand(4, 3, space.dim) - 0.5)
    program = torch.export.export(Density(), given, dynamic_shapes=({0: batch}, {0: batch})).module()
    given = (torch.rand(6, 3, 16, 16), torch.rand(6, 3, space.dim) - 0.5)
    for found, expected in zip(program(*given), Density()(*given), strict=True):
        torch.testing.assert_close(found, expected)


def test_models_are_copied_and_pickled() -> None:
    made = model().eval()
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301  # our own bytes
        p = [m.predict(X, generator=torch.Generator().manual_seed(0)) for m in (made, twin)]
        assert torch.equal(*p)
        twin.load_state_dict(made.state_dict())
