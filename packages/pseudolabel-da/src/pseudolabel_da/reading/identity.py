"""Whether data are what they seem: labels that fit the model, and the same samples as before."""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel_da.reading.samples import Samples, TensorSamples
from pseudolabel_da.seeds import make_generator

LOOKED_AT = 32  # rows


def check_labels(labels: Tensor | None, classes: int, what: str) -> None:
    """Raise ValueError unless labels (N,) are whole numbers from 0 to classes - 1.

    Args:
        labels: None passes.
        classes: K, that the model tells apart.
        what: Whose labels, for the message.
    """
    if labels is None or not labels.numel():
        return
    if labels.is_floating_point():
        raise ValueError(f"labels of {what} must be whole numbers from 0 to {classes - 1}, got {labels.dtype}")
    least, most = (int(value) for value in torch.aminmax(labels))
    if least < 0 or most >= classes:
        advice = "subtract 1" if least == 1 and most == classes else f"or give the model {most + 1} outputs"
        advice = "leave out what has no label" if least < 0 else advice
        raise ValueError(
            f"labels of {what} must be in 0..{classes - 1} for a model of {classes} outputs, "
            f"got {least}..{most}: {advice}"
        )


def check_known_labels(samples: Samples | None, classes: int, what: str) -> None:
    """`check_labels` of samples whose labels are at hand; those of datasets are checked as they are read."""
    if isinstance(samples, TensorSamples):
        check_labels(samples.labels, classes, what)


def fingerprint(samples: Samples) -> str:
    """A short text that is the same for the same samples, and another for others; nothing where it cannot be told.

    It looks at a few rows spread evenly. Datasets that give another input each time have none.
    """
    size = len(samples)
    if size == 0:
        return ""
    rows = torch.linspace(0, size - 1, min(size, LOOKED_AT)).long()
    first, second = (next(samples.stream([rows]))[0] for _ in range(2))
    if first.shape != second.shape or not torch.equal(torch.nan_to_num(first), torch.nan_to_num(second)):
        return ""
    raw = first.detach().cpu().contiguous().flatten().view(torch.uint8).long()
    weights = torch.randint(-(2**62), 2**62, raw.shape, generator=make_generator(size, "fingerprint"))
    return f"{size} {tuple(first.shape[1:])} {first.dtype} {int((raw * weights).sum())}"  # overflow wraps around
