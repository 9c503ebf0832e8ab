"""Determinant-based mutual information."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fdiv_noisy.labels import flatten, full_precision, make_labels, says_which_label


class DMILoss(nn.Module):
    r"""Determinant-based mutual information $-\log(|\det U| + 10^{-3})$, $U = Y^\top P$ (Xu et al. 2019).

    U (K, K) sums over the batch, unnormalised, as in the authors' code: divided by B, the floor swallows the gradient.
    It does not say which class is which, so start from a model trained with cross-entropy. Batches need every class.

    Args:
        ignore_index: Targets of this value count for nothing.
    """

    def __init__(self, ignore_index: int | None = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    @says_which_label
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
