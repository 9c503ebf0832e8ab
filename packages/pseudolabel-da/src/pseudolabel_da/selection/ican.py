"""The selection of the original iCAN (Zhang et al. 2018), which the paper's algorithm modifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pseudolabel_da.selection.checks import check_rho
from pseudolabel_da.selection.rule import Selection, known, most_confident
from pseudolabel_da.selection.thresholds import adaptive_threshold


@dataclass(frozen=True)
class ICANSelector:
    r"""Samples at least as confident as the adaptive threshold, whose domain weight is above a bias.

    Use it with `relabel=True` (iCAN builds its set anew every epoch) and, for the weights, give the labeler
    `weight_fn`: images to one weight each, from a domain classifier; the pseudo-labelled loss is weighted by them.

    Attributes:
        rho: 2.4 in the published code (an accompanying log implies about 2.7); 3 in the paper.
        bias: Domain weights must exceed it.
    """

    rho: float = 2.4
    bias: float = 0.0

    def __post_init__(self) -> None:
        check_rho(self.rho)

    def select(
        self, probs: Tensor, *, accuracy: float | Tensor | None = None, weight: Tensor | None = None, **context: Any
    ) -> Selection:
        """The selection among (N, K), given the accuracy and domain weights (N,), or none.

        iCAN takes the accuracy of the last epoch on source training data; here it is that on validation data.

        Raises:
            ValueError: There is no accuracy, or the weights are not (N,).
        """
        labels, confidence = most_confident(probs)
        threshold = torch.as_tensor(
            adaptive_threshold(known(accuracy), self.rho), dtype=probs.dtype, device=probs.device
        )
        mask = confidence >= threshold
        if weight is not None:
            if weight.shape != confidence.shape:
                raise ValueError(f"weight must have shape {tuple(confidence.shape)}, got {tuple(weight.shape)}")
            mask = mask & (weight > self.bias)
        return Selection(mask, labels, confidence, threshold)
