r"""The losses of classifier and augmenter (paper, equations 8, 10, 17 and 18), as functions of logits and densities.

One backward pass of $L_{cls} + \alpha\, E[\log g]$ trains both networks: the density does not depend on the
classifier, so the classifier has the gradient of its cross-entropy alone.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Aggregate = Literal["ce_mean", "logit_mean", "prob_mean"]
AGGREGATES = ("ce_mean", "logit_mean", "prob_mean")


class AugLoss(NamedTuple):
    """The loss and its parts."""

    total: Tensor
    """Cross-entropy - alpha * entropy, 0-dim."""
    ce: Tensor
    """The classifier's loss, 0-dim."""
    entropy: Tensor
    """Monte Carlo entropy of the augmenter in nats, 0-dim."""


def mean_log_probability(logits: Tensor) -> Tensor:
    """log p(c | x) (B, K), the log of the mean over S views of the class probabilities (equation 8), of (B, S, K)."""
    return torch.logsumexp(logits.log_softmax(-1), -2) - math.log(logits.shape[-2])


def classifier_loss(logits: Tensor, targets: Tensor, aggregate: Aggregate = "ce_mean") -> Tensor:
    """The classifier's loss over S views per image, in at least float32.

    Args:
        logits: (B, S, K).
        targets: Class indices (B,), or probabilities (B, K).
        aggregate: `ce_mean`: the mean of the views' cross-entropies (equation 10, an upper bound of the next).
            `prob_mean`: -log of the mean probability (equation 8; exact as S grows). `logit_mean`: cross-entropy of
            the mean logits, as the published CIFAR code has it; not a bound of either.

    Returns:
        0-dim.

    Raises:
        ValueError: Shapes do not fit or the aggregate is unknown.
    """
    check_aggregate(aggregate)
    if logits.dim() != 3 or targets.dim() not in (1, 2) or logits.shape[0] != targets.shape[0]:
        raise ValueError(
            f"expected logits (B, S, K) and targets (B,) or (B, K), got {tuple(logits.shape)}, {tuple(targets.shape)}"
        )
    if targets.dim() == 1 and (targets.is_floating_point() or targets.dtype == torch.bool):
        raise ValueError(f"class indices (B,) must be whole numbers, got {targets.dtype}: convert them, y.long()")
    if targets.dim() == 2 and targets.shape[1] != logits.shape[2]:
        raise ValueError(f"expected probabilities (B, {logits.shape[2]}), got {tuple(targets.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.long() if targets.dim() == 1 else targets
    if aggregate == "ce_mean":  # linear in the log-probabilities: one mean before the loss
        return F.nll_loss(mean_views(logits), targets) if targets.dim() == 1 else _soft(mean_views(logits), targets)
    if aggregate == "prob_mean":
        log_p = mean_log_probability(logits)
        return F.nll_loss(log_p, targets) if targets.dim() == 1 else _soft(log_p, targets)
    return F.cross_entropy(logits.mean(1), targets)


def check_aggregate(aggregate: str) -> None:
    """Raise ValueError unless it is one of `AGGREGATES`."""
    if aggregate not in AGGREGATES:
        raise ValueError(f"aggregate must be one of {', '.join(AGGREGATES)}, got {aggregate!r}")


def check_alpha(alpha: float | Tensor) -> None:
    """Raise ValueError for a price below 0, which would pay for a collapse without end. Tensors are not looked at."""
    if not isinstance(alpha, Tensor) and not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must be finite and 0 or more, got {alpha}")


def mean_views(logits: Tensor) -> Tensor:
    """Mean over views of the log-probabilities (B, S, K), as (B, K)."""
    return logits.log_softmax(-1).mean(1)


def _soft(log_p: Tensor, targets: Tensor) -> Tensor:
    return -(targets * log_p).sum(-1).mean()


def flow_aug_loss(
    logits: Tensor,
    targets: Tensor,
    log_prob: Tensor,
    alpha: float | Tensor,
    aggregate: Aggregate = "ce_mean",
) -> AugLoss:
    r"""The loss of both networks, $L_{cls} + \alpha\, E_{T \sim g}[\log g(T; I)]$ (equations 10 and 18).

    Its minimum over g at a fixed classifier f is $g \propto f^{1/\alpha}$ on the box.

    Args:
        logits: (B, S, K), of views sampled with gradient.
        targets: (B,) or (B, K).
        log_prob: Log-densities (B, S) of the views' transforms.
        alpha: Price of a nat of the joint entropy, in w-space; 0 collapses the distribution.
        aggregate: As in `classifier_loss`.

    Returns:
        Total, cross-entropy and entropy.

    Raises:
        ValueError: Shapes do not fit, or alpha is below 0.
    """
    check_alpha(alpha)
    if log_prob.shape != logits.shape[:2]:
        raise ValueError(f"expected log_prob {tuple(logits.shape[:2])}, got {tuple(log_prob.shape)}")
    ce = classifier_loss(logits, targets, aggregate)
    entropy = -log_prob.mean()
    return AugLoss(ce - alpha * entropy, ce, entropy)


def score_function_loss(logits: Tensor, targets: Tensor, log_prob: Tensor) -> Tensor:
    """Cross-entropy whose gradient also reaches transforms that are drawn from a finite set.

    The value is that of `ce_mean`; the gradient adds CE * grad log g of every view, less the mean CE of the image's
    other views (a baseline that leaves it unbiased and lowers its variance).

    Args:
        logits: (B, S, K).
        targets: (B,) or (B, K).
        log_prob: (B, S), with gradient to the augmenter.

    Returns:
        0-dim.
    """
    B, S, K = logits.shape
    repeated = targets.repeat_interleave(S, 0)
    ce = F.cross_entropy(logits.reshape(B * S, K), repeated, reduction="none").view(B, S)
    price = ce.detach()
    if S > 1:
        price = price - (price.sum(1, keepdim=True) - price) / (S - 1)
    return ce.mean() + (price * (log_prob - log_prob.detach())).mean()
