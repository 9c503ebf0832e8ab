"""The steps of an epoch: fetch the rows, compute the loss, step the optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pseudolabel_da.algorithm.augmentation import Augment
from pseudolabel_da.algorithm.objective import AdaptationLoss, Labeled
from pseudolabel_da.algorithm.planning import Rows
from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.algorithm.samples import Samples

Prepare = Callable[[Tensor], Tensor]


class Fetcher:
    """Makes the two batches of a step from rows.

    Args:
        source: Labelled samples.
        target: Target samples, or None where no step has any.
        pool: Their pseudo-labels, likewise.
        prepare: From stored inputs to what the model takes.
        augment: For pseudo-labelled samples, or None.
        source_augment: For source samples, or None.
        generator: Of the augmentation.
        weighted: Give pseudo-labelled samples their weights, and source samples 1.
    """

    def __init__(
        self,
        source: Samples,
        target: Samples | None,
        pool: PseudoLabelPool | None,
        prepare: Prepare,
        *,
        augment: Augment | None = None,
        source_augment: Augment | None = None,
        generator: torch.Generator | None = None,
        weighted: bool = False,
    ) -> None:
        self.source, self.target, self.pool, self.prepare = source, target, pool, prepare
        self.augment, self.source_augment = augment, source_augment
        self.generator, self.weighted = generator, weighted

    def batches(self, steps: Sequence[Rows]) -> Iterator[tuple[Labeled | None, Labeled | None]]:
        """The source batch and the pseudo-labelled batch of each step; either may be None."""
        sources = self.source.stream([step.source for step in steps if step.source is not None])
        wanted = [step.pseudo for step in steps if step.pseudo is not None]
        targets = iter(()) if self.target is None else self.target.stream(wanted)
        for step in steps:
            yield (
                None if step.source is None else self._source(*next(sources)),
                None if step.pseudo is None else self._pseudo(next(targets)[0], step.pseudo),
            )

    def _source(self, inputs: Tensor, labels: Tensor | None) -> Labeled:
        if labels is None:
            raise ValueError("source samples need labels: give (inputs, labels), or a dataset of such pairs")
        inputs = self._prepared(inputs, self.source_augment)
        labels = labels.to(inputs.device, non_blocking=True)
        return Labeled(inputs, labels, torch.ones_like(labels, dtype=torch.float32) if self.weighted else None)

    def _pseudo(self, inputs: Tensor, rows: Tensor) -> Labeled:
        assert self.pool is not None  # rows come from it
        weight = self.pool.weight[rows] if self.weighted else None
        return Labeled(self._prepared(inputs, self.augment), self.pool.labels[rows], weight)

    def _prepared(self, inputs: Tensor, augment: Augment | None) -> Tensor:
        inputs = self.prepare(inputs)
        return inputs if augment is None else augment(inputs, self.generator)


def train_steps(
    objective: AdaptationLoss,
    optimizer: torch.optim.Optimizer,
    steps: Sequence[Rows],
    fetcher: Fetcher,
    *,
    pseudo_weight: float = 1.0,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """One optimizer step for each of `steps`, in training mode; never waits for the device.

    Returns:
        The sum of the losses, 0-dim, on the device; 0 without a step.
    """
    total = torch.zeros(())
    objective.train()
    for source, pseudo in fetcher.batches(steps):
        device = (source or pseudo).inputs.device.type  # pyright: ignore[reportOptionalMemberAccess]  # a step has one
        with torch.autocast(device, dtype=autocast) if autocast else contextlib.nullcontext():
            loss = objective(source, pseudo, pseudo_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total = total.to(loss.device) + loss.detach()
    return total
