"""Any classifier behind an augmenter: trained on sampled views, predicting by their mean probability."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flowaug.augmenter import Augmenter
from flowaug.objective import (
    Aggregate,
    AugLoss,
    check_aggregate,
    check_alpha,
    classifier_loss,
    flow_aug_loss,
    score_function_loss,
)
from flowaug.spaces import AffineSpace, check_images
from flowaug.warp import compose, warp

exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # the first from torch 2.7 on


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode; afterwards every part of it is in the mode that it had, whatever happened."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def checked_logits(logits: object, x: Tensor) -> Tensor:
    """What a classifier made of images (B, C, H, W); ValueError unless it is a tensor of logits (B, K)."""
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the classifier gave {type(logits).__name__} where a tensor of logits (B, K) is expected: "
            "wrap it in a module that returns its logits alone"
        )
    if logits.dim() != 2 or logits.shape[0] != x.shape[0]:
        raise ValueError(f"the classifier must give logits (B, K), it gave {tuple(logits.shape)} of {tuple(x.shape)}")
    return logits


class AugmentedClassifier(nn.Module):
    """A classifier f and an augmenter g: p(c | x) = E over T of g of f(c; T x) (paper, equation 8).

    Batch norm sees augmented views in training; with `include_original` it sees the image as well, and a model that
    predicts on the originals should be trained with it.

    Args:
        classifier: Images (B, C, H, W) to logits (B, K).
        augmenter: A `FlowAugmenter` or one of `flowaug.baselines`.
        n_train: S in training.
        n_test: S in prediction.
        aggregate: The classifier's loss over views; see `flowaug.objective.classifier_loss`.
        include_original: Whether the loss adds the cross-entropy of the image itself, and predictions count it as one
            more view. Published: in the loss of the toy runs, and in the predictions of the CIFAR runs.
        chunk: Most views per pass of the classifier in prediction; memory does not grow with S.

    Raises:
        ValueError: A number of views is below 1, or the aggregate unknown.

    Attributes:
        frozen: Whether `loss` trains the augmenter alone, against a classifier that stays as it is (the paper's
            three-mode and rotation-discovery runs). The original is then left out; the classifier is in evaluation mode
            for that while, its modules are given back in the mode that they had.
    """

    def __init__(
        self,
        classifier: nn.Module,
        augmenter: Augmenter,
        n_train: int = 4,
        n_test: int = 20,
        aggregate: Aggregate = "ce_mean",
        include_original: bool = False,
        chunk: int = 1024,
    ) -> None:
        super().__init__()
        if n_train < 1 or n_test < 1 or chunk < 1:
            raise ValueError(f"n_train, n_test and chunk must be >= 1, got {n_train}, {n_test} and {chunk}")
        check_aggregate(aggregate)
        self.classifier, self.augmenter = classifier, augmenter
        self.n_train, self.n_test, self.chunk = n_train, n_test, chunk
        self.aggregate: Aggregate = aggregate
        self.include_original = include_original
        self.frozen = False

    def logits(self, views: Tensor) -> Tensor:
        """Logits (B, S, K) of views (B, S, C, H, W)."""
        return self._classify(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def _classify(self, x: Tensor) -> Tensor:
        """Logits of images; of a frozen classifier without its gradients, which cost a third of the backward pass."""
        if not self.frozen:
            return checked_logits(self.classifier(x), x)
        weights = {name: parameter.detach() for name, parameter in self.classifier.named_parameters()}
        with evaluating(self.classifier):
            return checked_logits(functional_call(self.classifier, weights, (x,)), x)

    def loss(
        self, x: Tensor, y: Tensor, alpha: float | Tensor = 0.1, generator: torch.Generator | None = None
    ) -> AugLoss:
        """The loss of both networks on a batch (equations 10 and 18).

        Args:
            x: Images (B, C, H, W).
            y: Labels (B,), or probabilities (B, K).
            alpha: Price of a nat of entropy; a constant or an `EntropyController`'s.
            generator: Of the transforms.

        Returns:
            Total, cross-entropy (with the original's, where included) and entropy.

        Raises:
            ValueError: Images, labels or what the classifier gives do not fit, or alpha is below 0.
        """
        check_alpha(alpha)
        views, _, log_prob = self.augmenter(x, self.n_train, generator)
        logits = self.logits(views)
        if self.augmenter.discrete:
            ce = score_function_loss(logits, y, log_prob)
            parts = AugLoss(ce - alpha * self.augmenter.entropy(x).mean(), ce, -log_prob.mean())
        else:
            parts = flow_aug_loss(logits, y, log_prob, alpha, self.aggregate)
        if not self.include_original or self.frozen:
            return parts
        extra = self.plain_loss(x, y)
        return AugLoss(parts.total + extra, parts.ce + extra, parts.entropy)

    def plain_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of the images themselves, for the first epochs: the classifier must know something first."""
        check_images(x)
        return classifier_loss(checked_logits(self.classifier(x), x)[:, None], y)

    def forward(self, x: Tensor) -> Tensor:
        """log p(c | x) (B, K) by `n_test` views: usable as logits, whose softmax is p.

        For prediction alone: it has no gradient. Train with `loss`.
        """
        return self.predict(x).log()

    @torch.no_grad()
    def predict(
        self,
        x: Tensor,
        n: int | None = None,
        align: dict[str, Any] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Class probabilities by the mean over sampled views.

        Args:
            x: Images (B, C, H, W).
            n: S; `n_test` when None.
            align: Options of `Augmenter.align`, such as `{"steps": 10}`, to align the images first. Views around the
                aligned pose are read from the original images at once.
            generator: Of the transforms.

        Returns:
            p(c | x), (B, K), float32 at least; (0, K) of no image.

        Raises:
            ValueError: n is below 1, or alignment in a space that is not affine.
        """
        check_images(x)
        n = self.n_test if n is None else n
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        if align is None:
            w, _ = self.augmenter.sample(x, n, generator)
            return self._mean_probability(x, w, None)
        aligned, matrices, _ = self.augmenter.align(x, **align, generator=generator)
        w, _ = self.augmenter.sample(aligned, n, generator)
        return self._mean_probability(x, w, matrices)

    def _mean_probability(self, x: Tensor, w: Tensor, matrices: Tensor | None) -> Tensor:
        """Mean over views w (B, S, d), a few at a time, of the probabilities (B, K)."""
        total = None
        if self.include_original:
            total = self._probability(self._views(x, w[:, :0], matrices))
        for part in self._chunks(w):
            summed = self._probability(self._views(x, part, matrices))
            total = summed if total is None else total + summed
        assert total is not None  # n >= 1
        return total / (w.shape[1] + int(self.include_original))

    def _chunks(self, w: Tensor) -> Sequence[Tensor]:
        """Views w (B, S, d), as many at a time as `chunk` allows; all at once in an exported program."""
        if exporting():
            return [w]
        return w.split(max(1, self.chunk // max(1, len(w))), 1)

    def _probability(self, views: Tensor) -> Tensor:
        """Sum over views (B, S, C, H, W) of the class probabilities, (B, K)."""
        logits = self.logits(views)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1).sum(1)

    def _views(self, x: Tensor, w: Tensor, matrices: Tensor | None) -> Tensor:
        """Views (B, S, C, H, W) by w; the image itself, aligned where it is, for an empty w."""
        space = self.augmenter.space
        if matrices is None:
            return self.augmenter.warp(x, w) if w.shape[1] else x[:, None]
        if not isinstance(space, AffineSpace):
            raise ValueError("alignment needs an AffineSpace")
        moves = matrices[:, None]
        if w.shape[1]:
            moves = compose(moves, space.matrix(w, (x.shape[-2], x.shape[-1])).to(moves))
        return warp(x, moves, space.mode, space.padding, space.align_corners, space.fill)

    def param_groups(self, lr: float, lr_aug: float, **options: Any) -> list[dict[str, Any]]:
        """Groups for one optimizer: the classifier at `lr` with `options`, the augmenter at `lr_aug` without decay."""
        return [
            {"params": list(self.classifier.parameters()), "lr": lr, **options},
            {"params": list(self.augmenter.parameters()), "lr": lr_aug, "weight_decay": 0.0},
        ]
