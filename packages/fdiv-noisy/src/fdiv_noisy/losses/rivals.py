r"""The losses that f-divergences are compared with, all with the options of `nn.CrossEntropyLoss`.

Each is linear in the label: it has a value for every class, and a hard label picks one, a soft label averages them.
So all share one module that differs only in `LabelLinearLoss.class_values`. DMI is not and stands alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fdiv_noisy.labels import Labels, check_options, flatten, full_precision, make_labels, pair_scale, reduce
from fdiv_noisy.transition import Transition, as_matrix, coefficients

FLOOR = 1e-7  # smallest probability whose logarithm is taken where the published losses clamp


class LabelLinearLoss(nn.Module, ABC):
    """A loss with one value per class; subclasses give `class_values`.

    Args:
        weight: (K,) class weights.
        ignore_index: Hard targets of this value count for nothing.
        label_smoothing: Share of each label spread over all classes, in [0, 1].
        reduction: `mean` (weighted), `sum` or `none`.

    Shape:
        - logits: (B, K) or (B, K, d1, ...).
        - targets: (B, d1, ...) class indices, or probabilities of the logits' shape.
    """

    weight: Tensor | None
    coefficients: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_options(reduction, label_smoothing, weight)
        self.register_buffer("weight", weight)
        self.register_buffer("coefficients", None)  # (K, K) bias correction, where a subclass has one
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    @abstractmethod
    def class_values(self, log_p: Tensor) -> Tensor:
        """The loss (N, K) that each label would have, from log-probabilities (N, K)."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss, reduced."""
        shape = targets.shape if not targets.is_floating_point() else logits.shape[:1] + logits.shape[2:]
        logits, targets = flatten(logits, targets)
        weight, coefficients = (None if x is None else x.to(logits) for x in (self.weight, self.coefficients))
        with full_precision(logits):
            labels = make_labels(
                targets,
                logits,
                weight=weight,
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
                coefficients=coefficients,
            )
            values = self.sample_values(self.class_values(logits.log_softmax(1)), labels)
            return reduce(values, labels, self.reduction, shape)

    def sample_values(self, values: Tensor, labels: Labels) -> Tensor:
        """Weighted loss (N,) of each sample from those of every label (N, K)."""
        return labels.contract(values)


class MAELoss(LabelLinearLoss):
    r"""Mean absolute error $\lVert e_y - p \rVert_1 = 2 - 2 p_y$ (Ghosh et al. 2017)."""

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return 2 - 2 * log_p.exp()


class GCELoss(LabelLinearLoss):
    r"""Generalised cross-entropy $(1 - p_y^q) / q$ (Zhang and Sabuncu 2018): q -> 0 is CE, q = 1 half of MAE.

    Args:
        q: In (0, 1]; 0.7 in the paper.
    """

    def __init__(self, q: float = 0.7, **options) -> None:
        super().__init__(**options)
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}")
        self.q = q

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -torch.expm1(self.q * log_p) / self.q


class SCELoss(LabelLinearLoss):
    r"""Symmetric cross-entropy $\alpha CE + \beta RCE$ (Wang et al. 2019).

    Args:
        alpha: Weight of cross-entropy.
        beta: Weight of reverse cross-entropy.
        log_zero: What stands for log 0 in reverse cross-entropy, whose value is $-(1 - p_y)$ times it.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0, **options) -> None:
        super().__init__(**options)
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -self.alpha * log_p - self.beta * self.log_zero * (1 - log_p.exp())


class NCERCELoss(LabelLinearLoss):
    r"""Normalised plus reverse cross-entropy (Ma et al. 2020): $\alpha \log p_y / \sum_k \log p_k + \beta RCE$.

    Args:
        alpha: Weight of the normalised (active) part.
        beta: Weight of the reverse (passive) part.
        log_zero: What stands for log 0 in reverse cross-entropy.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0, log_zero: float = -4.0, **options) -> None:
        super().__init__(**options)
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        active = log_p / log_p.sum(1, keepdim=True)
        return self.alpha * active - self.beta * self.log_zero * (1 - log_p.exp())


class ForwardCorrection(LabelLinearLoss):
    r"""Forward correction $-\log (T^\top p)_{\tilde y}$ (Patrini et al. 2017).

    Args:
        transition: A noise model, or a row-stochastic (K, K) matrix.
        options: Those of every loss here; `weight` and `label_smoothing` are of the noisy label.
    """

    matrix: Tensor

    def __init__(self, transition: Transition, **options) -> None:
        super().__init__(**options)
        self.register_buffer("matrix", as_matrix(transition))

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -(log_p.exp() @ self.matrix.to(log_p)).clamp_min(FLOOR).log()


class BackwardCorrection(LabelLinearLoss):
    r"""Backward correction $-\sum_j (T^{-1})_{\tilde y j} \log p_j$ (Natarajan et al. 2013; Patrini et al. 2017).

    Unbiased for any invertible T, but unbounded below and of high variance.

    Args:
        transition: A row-stochastic (K, K) matrix or a noise model, taken as its matrix.
        options: Those of every loss here but `weight`. Smoothing spreads the corrected label.
    """

    def __init__(self, transition: Transition, **options) -> None:
        super().__init__(**options)
        check_options(self.reduction, self.label_smoothing, self.weight, corrected=True)
        self.coefficients = coefficients(as_matrix(transition))

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -log_p


class PeerLoss(LabelLinearLoss):
    r"""Peer loss $CE(x, \tilde y) - \alpha\, CE(x^\dagger, y^\circ)$ (Liu and Guo 2020).

    The peer label is that of another sample of the batch (one random cyclic shift a call), which is unbiased and needs
    no second forward pass. Cross-entropy is $-\log(p + \epsilon)$, without which the peer term has no bound.

    Args:
        alpha: Weight of the peer term; may be set between calls, as the authors do on MNIST under uniform noise:
            `fdiv_noisy.piecewise_linear([(120, 0.0), (300, 1.0)])` of the epoch.
        eps: Floor under the probability.
        generator: A CPU generator for the shifts.
    """

    def __init__(
        self, alpha: float = 1.0, eps: float = 1e-5, generator: torch.Generator | None = None, **options
    ) -> None:
        super().__init__(**options)
        self.alpha, self.eps, self.generator = alpha, eps, generator

    def class_values(self, log_p: Tensor) -> Tensor:
        """(N, K)."""
        return -(log_p.exp() + self.eps).log()

    def sample_values(self, values: Tensor, labels: Labels) -> Tensor:
        """(N,)."""
        n = labels.weight.numel()
        peers = labels.rolled(torch.randint(1, max(n, 2), (), generator=self.generator))
        scale = labels.weight * (pair_scale(labels.weight) * (n - 1))
        return labels.contract(values) - self.alpha * scale * peers.contract(values)


class DMILoss(nn.Module):
    r"""Determinant-based mutual information $-\log(|\det U| + 10^{-3})$, $U = Y^\top P$ (Xu et al. 2019).

    U (K, K) sums over the batch, unnormalised, as in the authors' code: divided by B, the floor swallows the gradient.
    It does not say which class is which, so start from a model trained with cross-entropy. Batches need every class.

    Args:
        ignore_index: Targets of this value count for nothing.
    """

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss (0-dim) of logits (B, K, ...) and class indices (B, ...) or probabilities."""
        logits, targets = flatten(logits, targets)
        with full_precision(logits):
            labels = make_labels(targets, logits, ignore_index=self.ignore_index)
            if labels.hard is not None:
                p = logits.softmax(1) * labels.weight[:, None]
                u = p.new_zeros(p.shape[1], p.shape[1]).index_add(0, labels.hard, p)
            else:
                assert labels.mass is not None
                u = labels.mass.T @ logits.softmax(1)
            return -(torch.linalg.det(u).abs() + 1e-3).log()
