"""The loss of one step of the rivals that train on unlabelled target batches: CORAL, DANN and Lee's pseudo-labels."""

from __future__ import annotations

from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pseudolabel_da.reading.batch_norm import train_but
from pseudolabel_da.reading.labeled import Criterion, Labeled
from pseudolabel_da.rivals.adversarial import DomainHead, domain_loss
from pseudolabel_da.rivals.alignment import Form, coral_loss


class Backbone(Protocol):
    """A network in two parts, as those of `pseudolabel_da.networks` are."""

    head: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """(B, D), what the linear layer takes."""
        ...


class TransferLoss(nn.Module):
    """Source loss plus a loss that brings the domains together; called as `AdaptationLoss` is.

    Args:
        model: With `features` and a linear `head`.
        criterion: Of the labelled samples.
        method: `coral`, `dann` or `lee`.
        together: Both domains in one forward pass, so that batch norm sees one batch.
        coral_features: `logits`, as Deep CORAL has it, or `penultimate`.
        coral_form: `exact` or `published`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        method: Literal["coral", "dann", "lee"],
        *,
        together: bool = False,
        coral_features: Literal["logits", "penultimate"] = "logits",
        coral_form: Form = "exact",
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.method = method
        self.together = together
        self.coral_features = coral_features
        self.coral_form: Form = coral_form
        width = cast("Backbone", model).head.in_features
        self.domain_head = DomainHead(width) if method == "dann" else None
        self.frozen: list[nn.Module] = []  # modules of the model that stay in evaluation mode

    def train(self, mode: bool = True) -> TransferLoss:
        """Training mode, but for the modules in `frozen`."""
        train_but(self, self.frozen, mode)
        return self

    def forward(self, source: Labeled, target: Labeled | None, weight: float = 1.0) -> Tensor:
        """The loss, 0-dim; `weight` is CORAL's, DANN's strength of reversal, or Lee's alpha.

        The labels of `target` are not looked at. Without a target it is the source loss.
        """
        network = cast("Backbone", self.model)
        if target is None:
            loss = self.criterion(self.model(source.inputs), source.labels)
            # DistributedDataParallel waits for a gradient of every parameter
            return loss if self.domain_head is None else loss + 0 * sum(p.sum() for p in self.domain_head.parameters())
        if self.together:
            features = network.features(torch.cat([source.inputs, target.inputs]))
            ours, theirs = features.split([len(source.inputs), len(target.inputs)])
        else:
            ours, theirs = network.features(source.inputs), network.features(target.inputs)
        logits = network.head(ours)
        return self.criterion(logits, source.labels) + self._transfer(ours, theirs, logits, weight)

    def _transfer(self, ours: Tensor, theirs: Tensor, logits: Tensor, weight: float) -> Tensor:
        if self.domain_head is not None:
            return domain_loss(self.domain_head, ours, theirs, weight)
        other = cast("Backbone", self.model).head(theirs)
        if self.method == "lee":
            return weight * F.cross_entropy(other, other.detach().argmax(1))
        pair = (logits, other) if self.coral_features == "logits" else (ours, theirs)
        return weight * coral_loss(*pair, form=self.coral_form)
