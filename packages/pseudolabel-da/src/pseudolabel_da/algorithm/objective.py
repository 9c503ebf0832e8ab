"""The loss of one step on labelled and pseudo-labelled samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pseudolabel_da.algorithm.settings import Passes
from pseudolabel_da.reading.batch_norm import frozen_batch_norm, train_but
from pseudolabel_da.reading.labeled import Criterion, Labeled
from pseudolabel_da.reading.prediction import LogitsFn, check_logits


class AdaptationLoss(nn.Module):
    """Model and criterion in one module, so that DistributedDataParallel can wrap both.

    A batch of one, where batch norm cannot train, is run with the running statistics.

    Args:
        model: Inputs to logits, or to what `logits_fn` turns into logits.
        criterion: Logits (B, K) and labels (B,) to a loss, 0-dim, or (B,) where samples are weighted.
        passes: `mixed` runs both kinds in one forward pass, so that batch norm sees one batch; otherwise each kind
            has its own.
        freeze_on_pseudo: Pseudo-labelled samples are normalized by the running statistics and do not move them.
        logits_fn: From what the model returns to logits.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        passes: Passes = "separate",
        freeze_on_pseudo: bool = False,
        logits_fn: LogitsFn | None = None,
    ) -> None:
        super().__init__()
        if passes not in ("separate", "mixed", "paired"):
            raise ValueError(f"unknown passes {passes!r}: expected separate, mixed or paired")
        if passes == "mixed" and freeze_on_pseudo:
            raise ValueError("one mixed forward pass cannot freeze batch norm for a part: take passes='paired'")
        self.model = model
        self.criterion = criterion
        self.passes: Passes = passes
        self.freeze_on_pseudo = freeze_on_pseudo
        self.logits_fn = logits_fn
        self.frozen: list[nn.Module] = []  # modules of the model that stay in evaluation mode

    def train(self, mode: bool = True) -> AdaptationLoss:
        """Training mode, but for the modules in `frozen`."""
        train_but(self, self.frozen, mode)
        return self

    def forward(self, source: Labeled | None, pseudo: Labeled | None, pseudo_weight: float = 1.0) -> Tensor:
        """The source loss plus `pseudo_weight` times the pseudo-labelled loss, 0-dim; a part that is None adds 0.

        Raises:
            ValueError: Both are None, or samples are weighted and the criterion reduces.
        """
        if source is not None and pseudo is not None and self.passes == "mixed":
            logits = self._logits(torch.cat([source.inputs, pseudo.inputs]), False)
            ours, theirs = logits.split([len(source.inputs), len(pseudo.inputs)])
            return self._loss(ours, source) + pseudo_weight * self._loss(theirs, pseudo)
        losses = []
        if source is not None:
            losses.append(self._loss(self._logits(source.inputs, False), source))
        if pseudo is not None:
            logits = self._logits(pseudo.inputs, self.freeze_on_pseudo)
            losses.append(pseudo_weight * self._loss(logits, pseudo))
        if not losses:
            raise ValueError("a step needs source or pseudo-labelled samples, got neither")
        return losses[0] if len(losses) == 1 else losses[0] + losses[1]

    def _logits(self, inputs: Tensor, frozen: bool) -> Tensor:
        with frozen_batch_norm(self.model, frozen or len(inputs) < 2):
            output = self.model(inputs)
        return check_logits(output if self.logits_fn is None else self.logits_fn(output))

    def _loss(self, logits: Tensor, samples: Labeled) -> Tensor:
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        loss = self.criterion(logits, samples.labels)
        if samples.weight is not None:
            if loss.shape != samples.weight.shape:
                raise ValueError(
                    f"weighted samples need a loss each, ({len(samples.weight)},), got shape {tuple(loss.shape)}: "
                    "give a criterion with reduction='none'"
                )
            loss = loss * samples.weight
        return loss.mean() if loss.ndim else loss
