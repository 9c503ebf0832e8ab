"""From rows to the two batches of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pseudolabel_da.algorithm.planning import Rows
from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.reading.augmentation import Augment
from pseudolabel_da.reading.identity import check_labels
from pseudolabel_da.reading.labeled import Labeled
from pseudolabel_da.reading.samples import Samples, TensorSamples
from pseudolabel_da.seeds import derive_seed

Prepare = Callable[[Tensor], Tensor]


class StepBatch(NamedTuple):
    """The samples of one step.

    Attributes:
        source: Labelled samples, or None.
        target: Target samples with pseudo-labels, or None; -1 where a method needs none.
        weight: Of the loss on the target.
    """

    source: Labeled | None
    target: Labeled | None
    weight: float = 1.0


class Fetcher:
    """Makes the two batches of a step from rows.

    The augmentation of a step is drawn from (seed, epoch, number of the step) alone.

    Args:
        source: Labelled samples.
        target: Target samples.
        pool: Their pseudo-labels, or None where no step has any.
        prepare: From stored inputs to what the model takes.
        augment: For target samples, or None.
        source_augment: For source samples, or None.
        seed: Of the augmentation.
        device: Where it is drawn.
        weighted: Give pseudo-labelled samples their weights, and source samples 1.
        classes: K, to check labels of datasets against, or None.
    """

    def __init__(
        self,
        source: Samples,
        target: Samples,
        pool: PseudoLabelPool | None,
        prepare: Prepare,
        *,
        augment: Augment | None,
        source_augment: Augment | None,
        seed: int,
        device: torch.device,
        weighted: bool = False,
        classes: int | None = None,
    ) -> None:
        self.source, self.target, self.pool, self.prepare = source, target, pool, prepare
        self.augment, self.source_augment = augment, source_augment
        self.seed, self.generator, self.weighted, self.classes = seed, torch.Generator(device), weighted, classes

    def batches(
        self, steps: Sequence[Rows], epoch: int, start: int = 0
    ) -> Iterator[tuple[int, Labeled | None, Labeled | None]]:
        """The number, the source batch and the target batch of each step from `start` on; either may be None."""
        sources = self.source.stream([step.source for step in steps[start:] if step.source is not None])
        targets = self.target.stream([step.pseudo for step in steps[start:] if step.pseudo is not None])
        for number in range(start, len(steps)):
            self.generator.manual_seed(derive_seed(self.seed, "augment", epoch, number))
            step = steps[number]
            yield (
                number,
                None if step.source is None else self._source(*next(sources)),
                None if step.pseudo is None else self._pseudo(next(targets)[0], step.pseudo),
            )

    def _source(self, inputs: Tensor, labels: Tensor | None) -> Labeled:
        if labels is None:
            raise ValueError("source samples need labels: give (inputs, labels), or a dataset of such pairs")
        if self.classes is not None and not isinstance(
            self.source, TensorSamples
        ):  # those of tensors were checked before, all at once
            check_labels(labels, self.classes, "the source")
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
