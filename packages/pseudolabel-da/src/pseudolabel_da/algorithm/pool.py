"""The pool of target samples: which have a pseudo-label, which, since when."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pseudolabel_da.selection.rule import Selection


class PseudoLabelPool(nn.Module):
    """State of the N target samples, in buffers: it moves with a model and saves with it.

    Updates replace tensors as a whole; nothing loops over samples.

    Args:
        samples: N.
        classes: K.

    Attributes:
        selected: (N,) bool, samples that have a pseudo-label.
        labels: (N,) int64, it; -1 without one.
        confidence: (N,) float32 at the time it was given; 0 without one.
        weight: (N,) float32, the weight of its loss; 1 unless domain weights are used.
        given: (N,) int64, the period it was given in; -1 without one.
        marginal: (K,) float64, mean prediction over the pool at the last period; zeros before the first.
        periods: () int64, periods completed.
    """

    selected: Tensor
    labels: Tensor
    confidence: Tensor
    weight: Tensor
    given: Tensor
    marginal: Tensor
    periods: Tensor

    def __init__(self, samples: int, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"a pool needs at least 2 classes, got {classes}")
        self.register_buffer("selected", torch.zeros(samples, dtype=torch.bool))
        self.register_buffer("labels", torch.full((samples,), -1))
        self.register_buffer("confidence", torch.zeros(samples))
        self.register_buffer("weight", torch.ones(samples))
        self.register_buffer("given", torch.full((samples,), -1))
        self.register_buffer("marginal", torch.zeros(classes, dtype=torch.float64))
        self.register_buffer("periods", torch.tensor(0))

    def __len__(self) -> int:
        return self.selected.numel()

    @property
    def classes(self) -> int:
        """K."""
        return self.marginal.numel()

    def rows(self) -> Tensor:
        """(P,) the samples with a pseudo-label, in increasing order; waits for the device."""
        return self.selected.nonzero()[:, 0]

    def remaining(self) -> Tensor:
        """(N - P,) the samples without one, in increasing order; waits for the device."""
        return (~self.selected).nonzero()[:, 0]

    def histogram(self) -> Tensor:
        """(K,) samples of each pseudo-label."""
        return class_counts(self.labels, self.classes)

    def update(self, selection: Selection, rows: Tensor | None = None, weight: Tensor | None = None) -> None:
        """Take in the selection of one period.

        Args:
            selection: Over the samples `rows`. With rows None it is over all N, and the set is rebuilt from it.
            rows: (M,) samples without a label that the selection is over; others keep what they have.
            weight: (N,) weights of all samples, or None for 1.

        Raises:
            ValueError: The selection does not fit the rows, or the pool.
        """
        size = len(self) if rows is None else rows.numel()
        if selection.mask.shape != (size,):
            raise ValueError(f"the selection is over {tuple(selection.mask.shape)} samples, expected ({size},)")
        if rows is None:
            self.clear()
        picked = selection.mask.nonzero()[:, 0]
        chosen = picked if rows is None else rows[picked]
        self.selected[chosen] = True
        self.labels[chosen] = selection.labels[picked]
        self.confidence[chosen] = selection.confidence[picked].to(self.confidence)
        self.given[chosen] = self.periods
        if weight is not None:
            self.weight[chosen] = weight[chosen].to(self.weight)
        self.periods += 1

    def clear(self) -> None:
        """Take every pseudo-label back; periods go on counting."""
        self.selected.zero_()
        self.labels.fill_(-1)
        self.confidence.zero_()
        self.weight.fill_(1)
        self.given.fill_(-1)


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """(K,) how often each class stands among labels (N,); negative ones count for nothing."""
    return torch.bincount(labels + 1, minlength=classes + 1)[1:]
