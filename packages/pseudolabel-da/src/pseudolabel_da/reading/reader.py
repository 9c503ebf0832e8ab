"""A model's outputs on whole sets of samples, and the target statistics of its batch norm."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pseudolabel_da.diagnosis.alerts import PseudoLabelWarning
from pseudolabel_da.diagnosis.validators import accuracy
from pseudolabel_da.reading.batch_norm import reestimate_batch_norm
from pseudolabel_da.reading.identity import check_labels
from pseudolabel_da.reading.prediction import LogitsFn, predict_logits
from pseudolabel_da.reading.samples import Samples, split_batches


def scale_images(inputs: Tensor) -> Tensor:
    """Bytes 0 to 255 mapped to [-1, 1]; inputs of any other type as they are."""
    return inputs.float() / 127.5 - 1 if inputs.dtype == torch.uint8 else inputs


def is_channels_last(model: nn.Module) -> bool:
    """Whether the convolutions of `model` are laid out with channels innermost, as by `memory_format=channels_last`."""
    for weight in model.parameters():
        if weight.ndim == 4:
            plain, last = weight.is_contiguous(), weight.is_contiguous(memory_format=torch.channels_last)
            if plain != last:  # else both layouts are the same, as those of 1x1 kernels are
                return last
    return False


class SetOutputs(NamedTuple):
    """The outputs on a set of N samples.

    Attributes:
        logits: (N, K), at least float32.
        labels: (N,) the set's own labels; (0,) where it has none.
        weight: (N,) domain weights, or None where they were not asked for.
    """

    logits: Tensor
    labels: Tensor
    weight: Tensor | None


@dataclass(frozen=True)
class Reader:
    """How samples reach a model.

    Attributes:
        model: On `device`.
        device: Of the model.
        dtype: Type of its inputs, where they are floating.
        transform: From stored inputs to what the model takes.
        logits_fn: From what it returns to logits, or None.
        autocast: The type to compute in under autocast, or None.
        batch: Samples in a batch.
        frozen: Modules of the model whose statistics stay as they are.
    """

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    transform: Callable[[Tensor], Tensor]
    logits_fn: LogitsFn | None = None
    autocast: torch.dtype | None = None
    batch: int = 256
    frozen: tuple[nn.Module, ...] = ()

    def prepare(self, stored: Tensor) -> Tensor:
        """What the model takes: on its device, transformed, floating inputs in its type, images in its layout."""
        inputs = self.transform(stored.to(self.device, non_blocking=True))
        inputs = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        # a model may call view on them, so that they are channels-last only where its weights are
        last = inputs.ndim == 4 and is_channels_last(self.model)
        return inputs.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def outputs(
        self,
        samples: Samples,
        weight_fn: Callable[[Tensor], Tensor] | None = None,
        rows: Tensor | None = None,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> SetOutputs:
        """One pass over all samples, or those of `rows` (M,), in large batches, in evaluation mode.

        Prepared inputs are what `change` makes of them, where it is given.
        """
        labels, weight = [], []
        wanted = torch.arange(len(samples), device=self.device) if rows is None else rows

        def inputs() -> Iterator[Tensor]:
            for stored, own in samples.stream(wanted.split(self.batch)):
                batch = self.prepare(stored)
                batch = batch if change is None else change(batch)
                if own is not None:
                    labels.append(own.to(self.device))
                if weight_fn is not None:
                    weight.append(weight_fn(batch))
                yield batch

        with torch.autocast(self.device.type, dtype=self.autocast) if self.autocast else contextlib.nullcontext():
            logits = predict_logits(self.model, inputs(), self.logits_fn)
        found = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.long, device=self.device)
        return SetOutputs(logits, found, torch.cat(weight) if weight else None)

    def accuracy(self, samples: Samples) -> float:
        """Share of samples whose most probable class is their label."""
        outputs = self.outputs(samples)
        check_labels(outputs.labels, outputs.logits.shape[1], "the validation set")
        return float(accuracy(outputs.logits, outputs.labels))

    def estimate_statistics(self, samples: Samples, most: int, generator: torch.Generator) -> None:
        """Set the statistics of batch norm to those over at most `most` batches of samples drawn at random.

        Batches have at least two samples; a single sample has no variance, and leaves the statistics as they are.
        """
        size = max(self.batch, 2)
        order = torch.randperm(len(samples), generator=generator)[: size * most]
        if len(order) < 2:
            return
        batches = split_batches(order.to(self.device), size)
        inputs = (self.prepare(x) for x, _ in samples.stream(batches))
        reestimate_batch_norm(self.model, inputs, self.model, self.frozen)


def data_range(reader: Reader, *sets: Samples, warn: bool = True) -> tuple[float, float]:
    """The range that an augmentation should take the values of prepared inputs for, by a few rows of each set.

    [0, 1] where no value is below 0 or above 1, [-1, 1] where none is outside of that, else that of the rows, with a
    warning if `warn`.
    """
    low, high = math.inf, -math.inf
    for samples in sets:
        rows = torch.linspace(0, len(samples) - 1, min(len(samples), reader.batch)).long()
        if len(samples):
            inputs = reader.prepare(next(iter(samples.stream([rows])))[0])
            least, most = torch.aminmax(torch.nan_to_num(inputs.float(), posinf=0.0, neginf=0.0))
            low, high = min(low, float(least)), max(high, float(most))
    if low >= -1 and high <= 1:
        return (0.0, 1.0) if low >= 0 else (-1.0, 1.0)
    if warn:
        warnings.warn(
            f"inputs range from {low:.3g} to {high:.3g}, outside of [-1, 1]: the augmentation takes that for their "
            "range; give transform= to scale them, or an augment= of your own",
            PseudoLabelWarning,
            stacklevel=2,
        )
    return (low, high) if low < high else (low - 1, high + 1)
