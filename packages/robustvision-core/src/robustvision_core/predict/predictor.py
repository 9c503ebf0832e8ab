"""A trained network with all that it needs to be used: preprocessing, classes, device."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustvision_core.data.reading.decode import usable_cores
from robustvision_core.errors import DataError
from robustvision_core.predict.preprocessing import Preprocessing

Extras = Mapping[str, Tensor]
Outputs = Callable[[Tensor], tuple[Tensor, Extras]]
"""Normalised images (B, C, H, W) to class probabilities (B, K), and by name what else the method knows, (B,) each."""


@dataclass(frozen=True)
class Predictions:
    """What was predicted for N images.

    Attributes:
        probabilities: (N, K) float32 on the CPU.
        classes: Name of each class.
        extras: What the method knows besides, (N,) float32 each, by name.
        files: Path of each of the N, empty for what was given as pixels.
        broken: Files that could not be read, and why; they are not among the N.
    """

    probabilities: Tensor
    classes: tuple[str, ...]
    extras: Extras = field(default_factory=dict)
    files: Sequence[Any] = ()
    broken: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> Tensor:
        """(N,) int64, the likeliest class of each."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """(N,) float32, the probability of that class."""
        return self.probabilities.amax(1)

    @property
    def names(self) -> list[str]:
        """The likeliest class of each, by name."""
        return [self.classes[label] for label in self.labels.tolist()]


class Predictor:
    """Predicts on images from anywhere.

    Args:
        network: Normalised images to logits; what `export` writes.
        outputs: From normalised images to probabilities and extras; by default the softmax of the network's logits.
        preprocessing: From images to what the network takes.
        classes: Name of each class.
        device: Where it runs; the network must be there.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        classes: Sequence[str],
        *,
        outputs: Outputs | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = network.eval()
        self.preprocessing = preprocessing
        self.classes = tuple(classes)
        self.device = torch.device(device)
        self._outputs = outputs or self._softmax

    def predict(self, images: Any, batch_size: int = 128) -> Predictions:
        """What the run predicts for `images`.

        Args:
            images: A path, a PIL image, an array (H, W, C) or a tensor (C, H, W), both uint8, or a sequence of such, of
                any sizes; or a tensor (N, C, H, W) uint8.
            batch_size: Images a step.

        Raises:
            DataError: One is no image; the message names it.
        """
        many = isinstance(images, list | tuple) or (isinstance(images, Tensor) and images.dim() == 4)
        sources = list(images) if many else [images]
        parts = list(self.stream(sources, batch_size, strict=True))
        if not parts:
            return Predictions(torch.zeros(0, len(self.classes)), self.classes)
        extras = {name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras}
        files = [_name(source) for source in sources]
        return Predictions(torch.cat([part.probabilities for part in parts]), self.classes, extras, files)

    def stream(self, sources: Sequence[Any], batch_size: int = 128, *, strict: bool = False) -> Iterator[Predictions]:
        """Predictions batch by batch, for any number of images; the next batch is read while the network works.

        Args:
            sources: Each as for `predict`.
            batch_size: Images a step.
            strict: Raise at a broken image; else it is in `broken` of its batch.
        """
        groups = [sources[start : start + batch_size] for start in range(0, len(sources), batch_size)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            waiting = self._read(pool, groups[0]) if groups else []
            for number, group in enumerate(groups):
                reading, waiting = waiting, self._read(pool, groups[number + 1]) if number + 1 < len(groups) else []
                yield self._predict_group(group, reading, strict)

    @torch.no_grad()
    def _predict_group(self, group: Sequence[Any], reading: list[Future[Tensor]], strict: bool) -> Predictions:
        images, kept, broken = [], [], {}
        for source, future in zip(group, reading, strict=True):
            try:
                images.append(future.result())
                kept.append(source)
            except DataError as error:
                if strict:
                    raise
                broken[str(source)] = str(error)
        if not images:
            return Predictions(torch.zeros(0, len(self.classes)), self.classes, {}, [], broken)
        batch = self.preprocessing.normalise(torch.stack(images).to(self.device))
        probabilities, extras = self._outputs(batch)
        extras = {name: value.detach().float().cpu() for name, value in extras.items()}
        return Predictions(probabilities.detach().float().cpu(), self.classes, extras, kept, broken)

    def _read(self, pool: ThreadPoolExecutor, group: Sequence[Any]) -> list[Future[Tensor]]:
        return [pool.submit(self.preprocessing.read, source, _name(source)) for source in group]

    def _softmax(self, images: Tensor) -> tuple[Tensor, Extras]:
        return self.network(images).float().softmax(1), {}


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | pathlib.Path) else ""
