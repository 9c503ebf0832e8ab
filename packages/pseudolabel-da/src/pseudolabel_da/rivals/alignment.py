"""Deep CORAL: source and target features with the same covariance."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Form = Literal["exact", "published"]


def coral_loss(source: Tensor, target: Tensor, *, mean_term: bool = False, form: Form = "exact") -> Tensor:
    r"""The CORAL distance of two batches of features (Sun and Saenko 2016, eq. 1-3).

    $$\ell = \frac{1}{4 d^2} \lVert C_S - C_T \rVert_F^2,
    \qquad C = \frac{1}{n - 1} \sum_i (x_i - \bar x)(x_i - \bar x)^T$$

    Deep CORAL takes the features of the last layer (the logits) and adds a weight times this to the source loss.
    A control belongs beside it: the target forward pass alone already moves the statistics of batch norm.

    Args:
        source: (n_s, d) features, n_s at least 2.
        target: (n_t, d) features, n_t at least 2 and not necessarily n_s.
        mean_term: Add $\lVert \bar x_s - \bar x_t \rVert^2 / d$.
        form: `published` is that of the code published with the pseudo-labelling paper, kept to compare with: second
            moments $X^T X / n$ that are not centred, and the mean over the d^2 entries on top of the division by
            4 d^2, so about d^2 times weaker.

    Returns:
        The distance, 0-dim. Half precision is computed in float32.

    Raises:
        ValueError: A shape is wrong, a batch has fewer than two samples, or the form is unknown.
    """
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ValueError(f"expected (n_s, d) and (n_t, d), got {tuple(source.shape)} and {tuple(target.shape)}")
    if min(len(source), len(target)) < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {len(source)} and {len(target)}")
    if form not in ("exact", "published"):
        raise ValueError(f"unknown form {form!r}: expected exact or published")
    if source.dtype in (torch.float16, torch.bfloat16) or target.dtype in (torch.float16, torch.bfloat16):
        source, target = source.float(), target.float()
    d = source.shape[1]
    with torch.autocast(source.device.type, enabled=False):  # else the products would be in half precision
        moment = _covariance if form == "exact" else _second_moment
        gap = (moment(source) - moment(target)).square()
        loss = (gap.sum() if form == "exact" else gap.mean()) / (4 * d * d)
    return loss + (source.mean(0) - target.mean(0)).square().mean() if mean_term else loss


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def _second_moment(features: Tensor) -> Tensor:
    return features.T @ features / len(features)


class CoralLoss(nn.Module):
    """`coral_loss` as a module: `CoralLoss()(source, target)`.

    Args:
        weight: Multiplies the loss. Deep CORAL sets it so that it and the source loss end about equal.
        mean_term: Add the distance of the means.
        form: `exact` or `published`.

    Shape:
        source (n_s, d) and target (n_t, d) to a 0-dim loss.
    """

    def __init__(self, weight: float = 1.0, mean_term: bool = False, form: Form = "exact") -> None:
        super().__init__()
        if form not in ("exact", "published"):
            raise ValueError(f"unknown form {form!r}: expected exact or published")
        self.weight = weight
        self.mean_term = mean_term
        self.form: Form = form

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The weighted distance."""
        return self.weight * coral_loss(source, target, mean_term=self.mean_term, form=self.form)

    def extra_repr(self) -> str:
        """The options."""
        return f"weight={self.weight}, mean_term={self.mean_term}, form={self.form!r}"
