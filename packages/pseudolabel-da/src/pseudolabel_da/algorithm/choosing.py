"""An augmentation chosen without target labels: of those that reverse validation keeps, the most diverse."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pseudolabel_da.algorithm.labeler import IncrementalPseudoLabeler
from pseudolabel_da.algorithm.settings import Settings
from pseudolabel_da.diagnosis.alerts import PseudoLabelWarning
from pseudolabel_da.diagnosis.error import disagreement
from pseudolabel_da.reading.augments import AUGMENTS
from pseudolabel_da.reading.reader import data_range
from pseudolabel_da.reading.samples import as_samples
from pseudolabel_da.seeds import forked_rng, make_generator

Pairs = tuple[Tensor, Tensor]


class AugmentChoice(NamedTuple):
    """Which augmentation to take, and why.

    Attributes:
        name: Its name.
        reverse: By name, accuracy on the source of a new network that was trained on the target with the labels of the
            network adapted so: reverse validation.
        diversity: By name, share of target samples whose class the network of the source changes when they are
            augmented.
        kept: Names that reverse validation does not refuse.
    """

    name: str
    reverse: dict[str, float]
    diversity: dict[str, float]
    kept: list[str]


def most_diverse(reverse: dict[str, float], diversity: dict[str, float], samples: int) -> AugmentChoice:
    """Of the names within two standard errors of the best accuracy over so many samples, the most diverse.

    The accuracies are of the same samples, so that the error of their difference is of those that they differ in; it
    is taken to be that of one of them.
    """
    best = max(reverse.values())
    slack = 2 * math.sqrt(max(best * (1 - best), 1 / samples) / samples)
    kept = [name for name, value in reverse.items() if value >= best - slack]
    return AugmentChoice(max(kept, key=diversity.__getitem__), reverse, diversity, kept)


def choose_augment(
    make_model: Callable[[], nn.Module],
    source: Pairs,
    target: Tensor,
    settings: Settings,
    *,
    pretrain: int,
    epochs: int,
    candidates: Sequence[str] = ("strong", "photo", "recolor", "jitter", "none"),
    most: int = 3000,
    transform: Callable[[Tensor], Tensor] | None = None,
    said: Callable[[str], None] = lambda text: None,
) -> AugmentChoice:
    """Adapt a network with each augmentation, and choose without a target label.

    Reverse validation trains a new network on the target, with the labels that the adapted one gives, and tests it on
    the source: augmentations under which labels go wrong fail it. Of those that pass, the most diverse is taken, for
    it keeps most from learning wrong labels by heart. Information maximisation and soft neighbourhood density are of no
    use here: they are highest where a network is surest, which it is of errors learnt by heart.

    Args:
        make_model: Makes a new network, of random weights.
        source: Labelled samples (N, ...), (N,).
        target: Unlabelled ones (M, ...).
        settings: How to adapt; their `augment` does not matter.
        pretrain: Epochs on the source alone.
        epochs: Of adaptation, and of the new network on the target.
        candidates: Names of augmentations to choose from.
        most: Samples of each domain that are looked at.
        transform: As of `IncrementalPseudoLabeler`.
        said: Called with a line for each candidate.
    """
    x, y, theirs = (data[_some(len(data), most, settings.seed)] for data in (*source, target))
    options: dict[str, Any] = {} if transform is None else {"transform": transform}
    with forked_rng(torch.device("cpu"), settings.seed, "choosing"), warnings.catch_warnings():
        warnings.simplefilter("ignore", PseudoLabelWarning)
        start = IncrementalPseudoLabeler(make_model(), settings=settings.changed(augment="none"), **options)
        start.pretrain((x, y), epochs=pretrain)
        reverse, diversity = {}, {}
        for name in candidates:
            labeler = adapted_with(name, start, (x, y), theirs, epochs)
            labels = labeler.probabilities(theirs).argmax(1).to(theirs.device)
            reverse[name] = reverse_accuracy(labeler, make_model(), theirs, labels, (x, y), epochs)
            diversity[name] = diversity_of(start, theirs, name)
            said(f"augment {name}: reverse validation {reverse[name]:.1%}, diversity {diversity[name]:.1%}")
    return most_diverse(reverse, diversity, len(x))


def adapted_with(
    name: str, start: IncrementalPseudoLabeler, source: Pairs, target: Tensor, epochs: int
) -> IncrementalPseudoLabeler:
    """A copy of a pretrained labeler, adapted with an augmentation."""
    settings = start.settings.changed(augment=name, check="means")
    labeler = IncrementalPseudoLabeler(copy.deepcopy(start.model), settings=settings, transform=start.reader.transform)
    labeler.fit(source, None, target, epochs=epochs)
    return labeler


def reverse_accuracy(
    like: IncrementalPseudoLabeler, model: nn.Module, target: Tensor, labels: Tensor, source: Pairs, epochs: int
) -> float:
    """Accuracy on the source of a new network trained, as `like` was, on the target with these labels."""
    back = IncrementalPseudoLabeler(model, settings=like.settings, transform=like.reader.transform)
    back.pretrain((target, labels), epochs=epochs)
    return float((back.probabilities(source[0]).argmax(1).cpu() == source[1].cpu()).double().mean())


def diversity_of(labeler: IncrementalPseudoLabeler, inputs: Tensor, name: str) -> float:
    """Share of samples whose most probable class changes under an augmentation."""
    augment = AUGMENTS[name]
    if augment is None:
        return 0.0
    samples, generator = as_samples(inputs, labeler.device), make_generator(0, "diversity", device=labeler.device)
    scale: Any = {"value_range": data_range(labeler.reader, samples, warn=False)}
    plain = labeler.reader.outputs(samples).logits
    changed = labeler.reader.outputs(samples, change=lambda x: augment(x, generator, **scale)).logits
    return disagreement(plain, changed)


def _some(size: int, most: int, seed: int) -> Tensor:
    """Rows of at most `most` of `size` samples."""
    return torch.randperm(size, generator=make_generator(seed, "choosing"))[:most]
