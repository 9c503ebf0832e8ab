r"""Penalties of invariant learning: what a classifier's risks say about its environments.

IRMv1 (Arjovsky et al. 2019; equation 2 of the paper) is the squared gradient of the risk in one number w that scales
the logits. For cross-entropy that gradient needs no autograd:

$$\partial_w \ell(w z, y) |_{w=1} = \frac{1}{n} \sum_n \sum_c (\mathrm{softmax}(z)_c - [y = c])\, z_c$$

so that its square has a cheap gradient of first order, also after an inner loop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scale_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Derivative (...) of each sample's cross-entropy in a factor of its logits, at 1.

    Args:
        logits: (..., N); half precision is computed in float32.
        labels: (...) int64.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    of_label = logits.gather(-1, labels[..., None])[..., 0]
    return (F.softmax(logits, -1) * logits).sum(-1) - of_label


def irm_penalty(logits: Tensor, labels: Tensor, *, unbiased: bool = False) -> Tensor:
    r"""The IRMv1 penalty (...) of environments with n samples each, $(\partial_w \ell(w z))^2$ at w = 1.

    It is 0 for constant logits too: a large weight from the start makes a model predict nothing. Anneal it.

    Args:
        logits: (..., n, N).
        labels: (..., n).
        unbiased: The mean over pairs of different samples. The square of the mean, as published, is too high by the
            variance over n, which is much for the 75 queries of an episode. May be negative.

    Raises:
        ValueError: `unbiased` has fewer than two samples.
    """
    each = scale_gradients(logits, labels)
    if not unbiased:
        return each.mean(-1).square()
    n = each.shape[-1]
    if n < 2:
        raise ValueError(f"the unbiased penalty needs at least 2 samples an environment, got {n}")
    return (each.sum(-1).square() - each.square().sum(-1)) / (n * (n - 1))


def vrex_penalty(risks: Tensor) -> Tensor:
    """Variance (...) of the risks (..., E) of E environments (Krueger et al. 2021), over E as published.

    Raises:
        ValueError: There is no environment.
    """
    if risks.dim() == 0 or risks.shape[-1] == 0:
        raise ValueError(f"risks must be (..., E) of at least one environment, got {tuple(risks.shape)}")
    return risks.var(-1, correction=0)


def std_penalty(risks: Tensor) -> Tensor:
    """Standard deviation (...) of the risks (..., E), as meta-IRM has it (Bae et al. 2021); its gradient is 0 at 0."""
    variance = vrex_penalty(risks)
    positive = variance > 0
    return torch.where(positive, torch.where(positive, variance, 1).sqrt(), 0)  # the inner where keeps NaN out
