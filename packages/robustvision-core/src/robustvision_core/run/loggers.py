"""What is told of every epoch of a run, beside its `metrics.jsonl`: TensorBoard, and loggers of yours."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from robustvision_core.config import flatten
from robustvision_core.errors import UserError

if TYPE_CHECKING:
    import pathlib


class Logger(Protocol):
    """Whatever takes the record of an epoch."""

    def __call__(self, record: Mapping[str, Any], folder: pathlib.Path) -> None:
        """Note a record: `epoch` from 1, `lr`, `loss`, what validation gave; `folder` is the run's."""
        ...


LOGGERS: list[Logger] = []
"""Told of every epoch of every run in this process."""


@contextlib.contextmanager
def log_to(logger: Logger) -> Iterator[None]:
    """Tell `logger` of every epoch of the runs within the block, in the process that writes.

    Args:
        logger: Called with the record of each epoch and the run folder, as
            `lambda record, folder: wandb.log(record)`. What it raises ends the training.

    Example:
        >>> from robustvision_core.run import log_to
        >>> seen = []
        >>> with log_to(lambda record, folder: seen.append(record["loss"])):
        ...     pass  # train(config) of any package
    """
    LOGGERS.append(logger)
    try:
        yield
    finally:
        LOGGERS.remove(logger)


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name, those of nested mappings as `a/b`; without the epoch itself."""
    return {
        name.replace(".", "/"): float(value)
        for name, value in flatten(record)
        if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


class TensorBoard:
    """Writes the scalars of every epoch to `tensorboard/` in the run folder.

    A run that goes on overwrites what was written after the epoch it goes on from.

    Raises:
        UserError: TensorBoard is missing.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError('--tensorboard needs TensorBoard: pip install "robustvision-core[tensorboard]"') from None
        self._make, self._writer = SummaryWriter, None

    def __call__(self, record: Mapping[str, Any], folder: pathlib.Path) -> None:
        """Write one epoch; the files are made with the first."""
        epoch = int(record["epoch"])
        if self._writer is None:
            self._writer = self._make(str(folder / "tensorboard"), purge_step=epoch)
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
