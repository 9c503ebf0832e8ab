"""The class shares of the target from predictions alone: corrected by the source's confusion, or by EM.

Both take it that a class looks alike in both domains, once adapted; where it does not, neither is right. They agree
where that holds, so their distance tells something of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pseudolabel_da.seeds import make_generator


def em_class_shares(probs: Tensor, prior: Tensor, iterations: int = 200) -> Tensor:
    r"""Class shares by maximum likelihood (Saerens, Latinne and Decaestecker 2002, eq. 2.9).

    Alternates posteriors $q_{nk} \propto p_{nk} \pi_k / \pi^S_k$ and their mean $\pi_k$, from the source's shares.

    Args:
        probs: (N, K) probabilities on the target, calibrated. Rows that are no numbers are left out.
        prior: (K,) shares of the classes that the model was trained on, above 0 where it knows the class.
        iterations: At most; it ends where nothing moves any more.

    Returns:
        Shares (K,), float64, that add up to 1; the prior where there is no row.

    Raises:
        ValueError: A shape is wrong.
    """
    if probs.ndim != 2 or prior.shape != probs.shape[1:]:
        raise ValueError(f"expected (N, K) and (K,), got {tuple(probs.shape)} and {tuple(prior.shape)}")
    source = prior.double() / prior.double().sum()
    ratios = probs[probs.isfinite().all(1)].double() / source.clamp_min(1e-12)
    shares = source
    for _ in range(iterations if len(ratios) else 0):
        posterior = ratios * shares
        now = (posterior / posterior.sum(1, keepdim=True).clamp_min(1e-300)).mean(0)
        moved, shares = float((now - shares).abs().max()), now
        if moved < 1e-7:
            break
    return shares


def bbse_class_shares(confusion: Tensor, predicted: Tensor) -> Tensor:
    r"""Class shares by the source's confusion (Lipton, Wang and Smola 2018, eq. 1).

    Solves $C w = \mu$ for the ratios of target to source shares, C the joint shares of (predicted, true) on source
    validation data and mu the predicted shares on the target; negative solutions are cut off.

    Args:
        confusion: (K, K) counts on source validation data, true classes in rows.
        predicted: (K,) counts of predicted classes on the target.

    Returns:
        Shares (K,), float64, that add up to 1.

    Raises:
        ValueError: A shape is wrong, or nothing was counted.
    """
    size = predicted.numel()
    if confusion.shape != (size, size) or not bool(confusion.sum() > 0) or not bool(predicted.sum() > 0):
        raise ValueError(f"expected counts (K, K) and (K,), got {tuple(confusion.shape)} and {tuple(predicted.shape)}")
    joint = confusion.T.double() / confusion.sum()
    ratios = torch.linalg.lstsq(joint.cpu(), (predicted.double() / predicted.sum()).cpu()[:, None], driver="gelsd")[0]
    shares = ratios[:, 0].to(joint.device).clamp_min(0) * joint.sum(0)
    total = shares.sum()
    return shares / total if bool(total > 0) else predicted.double() / predicted.sum()


class ClassShares(NamedTuple):
    """Estimated shares of K classes.

    Attributes:
        shares: (K,) that add up to 1.
        low: (K,) lower ends of their intervals.
        high: (K,) upper ends.
        cautious: (K,) the shares drawn towards even ones by how doubtful they are; what a selector goes by.
    """

    shares: Tensor
    low: Tensor
    high: Tensor
    cautious: Tensor


def apart(a: Tensor, b: Tensor) -> float:
    """Total variation of two distributions (K,): half of the sum of absolute differences."""
    return float((a - b).abs().sum() / 2)


CAUTION = 1.5


def cautious_shares(shares: Tensor, other: Tensor) -> Tensor:
    """Shares (K,) drawn towards even ones, the more the further another estimate is from them.

    Two estimates that agree are kept, as `em_class_shares` and `bbse_class_shares` do where classes look alike in both
    domains. Where they differ by two thirds of the distance to even classes or more, these are returned: a wrong prior
    costs more than none.

    Args:
        shares: (K,) that add up to 1.
        other: (K,) another estimate of them.
    """
    even = torch.full_like(shares, 1 / shares.numel())
    away = apart(shares, even)
    doubt = min(CAUTION * apart(shares, other.to(shares)) / away, 1.0) if away > 0 else 1.0
    return torch.lerp(shares, even, doubt)


def estimate_class_shares(
    probs: Tensor, prior: Tensor, seed: int = 0, repeats: int = 20, most: int = 5000, confusion: Tensor | None = None
) -> ClassShares:
    """`em_class_shares` with an interval of nine in ten by drawing the samples anew, and what to go by.

    The interval tells of chance alone, not of classes that look different in the two domains. Of those the distance to
    `bbse_class_shares` tells something, which `cautious` is drawn towards even classes by.

    Args:
        probs: (N, K) probabilities on the target.
        prior: (K,) shares of the classes that the model was trained on.
        seed: Of the draws.
        repeats: Their number.
        most: Samples looked at, drawn at random where there are more.
        confusion: (K, K) counts on source validation data, true classes in rows; without them `cautious` is even.
    """
    if not len(probs):
        shares = em_class_shares(probs, prior)
        even = torch.full_like(shares, 1 / shares.numel())
        return ClassShares(shares, torch.zeros_like(shares), torch.ones_like(shares), even)
    chosen = torch.randperm(len(probs), generator=make_generator(seed, "shares"))[:most]
    probs, draws = probs[chosen.to(probs.device)], []
    for repeat in range(repeats):
        rows = torch.randint(len(probs), (len(probs),), generator=make_generator(seed, "shares", repeat))
        draws.append(em_class_shares(probs[rows.to(probs.device)], prior, 50))
    shares = em_class_shares(probs, prior)
    low, high = torch.stack([shares, *draws]).quantile(shares.new_tensor([0.05, 0.95]), 0)
    cautious = torch.full_like(shares, 1 / shares.numel())
    if confusion is not None:
        predicted = torch.bincount(probs.argmax(1), minlength=len(shares))
        # a tenth of a sample of each class: a class that validation data lack leaves the others solvable
        other = bbse_class_shares(confusion + 0.1 * torch.eye(len(shares)).to(confusion), predicted)
        cautious = cautious_shares(shares, other)
    return ClassShares(shares, torch.minimum(low, shares), torch.maximum(high, shares), cautious)
