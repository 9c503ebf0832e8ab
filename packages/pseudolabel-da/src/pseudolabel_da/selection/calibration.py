"""Temperature scaling: probabilities that mean what they say, on source validation data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ITERATIONS = 60
LARGEST = 100.0


def fit_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    r"""The temperature T that minimizes the cross-entropy of `logits / T` (Guo et al. 2017).

    In $b = 1 / T$ the loss is convex, with slope $E[E_p z - z_y]$ and curvature $E[Var_p z]$: Newton's method, kept
    inside a bracket by bisection, without waiting for the device. Calibrated on the source, probabilities on the
    target remain too confident; yet overconfidence of the source itself is gone.

    Args:
        logits: (N, K). Rows with a value that is not finite are left out.
        labels: (N,) class indices.

    Returns:
        The temperature, 0-dim float64, in [0.01, 100]: an end of the range where every label is right (0.01) or no
        temperature helps (100).

    Raises:
        ValueError: There are no samples, or the shapes do not match.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.numel() == 0:
        raise ValueError(
            f"expected logits (N, K) and labels (N,) with N > 0, got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    valid = logits.detach().isfinite().all(1)
    share = valid.double() / valid.sum().clamp_min(1)
    z = torch.where(valid[:, None], logits.detach().double(), 0.0)
    z = z - z.amax(1, keepdim=True)
    own = share @ z.gather(1, labels[:, None])[:, 0]
    b, low, high = z.new_tensor(1.0), z.new_tensor(1 / LARGEST), z.new_tensor(LARGEST)
    for step in range(ITERATIONS):
        p = (b * z).softmax(1)
        mean = (p * z).sum(1, keepdim=True)
        slope = share @ mean[:, 0] - own
        curvature = share @ (p * (z - mean).square()).sum(1)
        at, low, high = b, torch.where(slope < 0, b, low), torch.where(slope < 0, high, b)
        b = (low * high).sqrt()
        if step % 2:  # Newton alone creeps where every label is right, and bisection alone is slow: take turns
            newton = at - slope / curvature
            b = torch.where((newton > low) & (newton < high), newton, b)  # false for a NaN too
    return 1 / b


def expected_calibration_error(probs: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """Mean distance between confidence and accuracy over equal bins of confidence, weighted by their samples.

    Args:
        probs: (N, K).
        labels: (N,).
        bins: Their number over [0, 1], closed on the right.

    Returns:
        A number in [0, 1], 0-dim.

    Raises:
        ValueError: The shapes do not match.
    """
    if labels.shape != probs.shape[:1]:
        raise ValueError(f"expected labels of shape ({probs.shape[0]},), got {tuple(labels.shape)}")
    confidence, predicted = probs.max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = F.one_hot(place, bins).to(probs).T @ (confidence - (predicted == labels).to(probs))
    return gap.abs().sum() / max(labels.numel(), 1)
