"""The folder that a run leaves behind.

`config.json` what was asked, `metrics.jsonl` one line an epoch, `summary.json` what came out, `checkpoint.pt`
the last complete state, `best.pt` the selected weights, `plots/*.png`. Every file but the growing
`metrics.jsonl` is replaced whole, so that a killed run leaves the last complete one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from robustvision_core.config import (
    RUN_FIELDS,
    check_same_config,
    flatten,
    from_plain,
    parse_json,
    plain,
    under_todays_names,
)
from robustvision_core.errors import CheckpointError, UserError
from robustvision_core.run.checkpoint import load_checkpoint, load_part, save_checkpoint
from robustvision_core.run.files import atomic_write, check_space, naming, write_json
from robustvision_core.run.lock import FolderLock
from robustvision_core.run.loggers import LOGGERS, Logger

if TYPE_CHECKING:
    from torch import nn

C = TypeVar("C")


class Run:
    """A run directory.

    Args:
        folder: Where the run lives; made if it is missing.
        config: What was asked: a dataclass instance or a mapping of plain values.
        resume: Go on from the folder's checkpoint. Without it a folder that holds a run is refused. The configuration
            must be that of the run, but that fields in the `MAY_GROW` of its dataclass may be larger, and that options
            which the run's version did not know have their defaults.
        writes: Whether this process writes (rank 0 only); the others read.

    The process that writes holds the folder's lock from here on until `close`, so that a run has one writer.

    Raises:
        UserError: The folder holds another run, is a file, is written by another process, or there is none to resume.
        CheckpointError: The configuration differs from that of the run to resume, or is unreadable.
        OSError: The folder cannot be written.

    Attributes:
        grown: By dotted name, what was and what is now of the fields that a resumed run has raised.
        loggers: Told of every epoch, beside those of `robustvision_core.run.log_to`.
    """

    def __init__(
        self, folder: str | os.PathLike[str], config: Any, *, resume: bool = False, writes: bool = True
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.config = plain(config)
        self.about: dict[str, Any] = {}  # what `robustvision_core.predict.describe` gives, for checkpoints to hold
        self._config_type = type(config) if dataclasses.is_dataclass(config) else None
        self.resume = resume
        self.writes = writes
        self.grown: dict[str, tuple[float, float]] = {}
        self.loggers: list[Logger] = []
        held = self.folder / "config.json"
        if file := next((path for path in (self.folder, *self.folder.parents) if path.is_file()), None):
            raise UserError(f"{file} is a file: give a folder as --out")
        if resume:
            if not held.exists():
                raise UserError(f"nothing to resume in {self.folder}: it has no config.json")
            self._check_same(_held_config(held), str(self.folder))
        self._refuse_another()
        self._lock = FolderLock(self.folder) if writes else None

    def _refuse_another(self) -> None:
        if self.writes and not self.resume and (self.folder / "config.json").exists():
            raise UserError(f"{self.folder} already holds a run: give another --out, or --resume to go on with it")

    def begin(self) -> None:
        """Write `config.json`. Nothing but the lock is there before: a run refused for bad input leaves no folder.

        Raises:
            UserError: Another run began in the folder since this one was opened.
        """
        self._refuse_another()
        if self.writes and (self.grown or not self.resume):
            write_json(self.folder / "config.json", self.config)

    def check_space(self, size: int) -> None:
        """Raise OSError, before training, where a checkpoint of `size` bytes cannot be written."""
        if self.writes:
            check_space(self.folder, size)

    def close(self) -> None:
        """Close the loggers, and let others write to the folder."""
        for logger in self.loggers:
            if close := getattr(logger, "close", None):
                close()
        if self._lock is not None:
            self._lock.release()

    @property
    def checkpoint_path(self) -> pathlib.Path:
        """The last complete training state."""
        return self.folder / "checkpoint.pt"

    @property
    def best_path(self) -> pathlib.Path:
        """The weights that model selection chose."""
        return self.folder / "best.pt"

    def plot_path(self, name: str) -> pathlib.Path:
        """`plots/NAME.png`; the folder is made."""
        path = self.folder / "plots" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`, and tell the loggers."""
        if self.writes:
            path = self.folder / "metrics.jsonl"
            with naming(path), open(path, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(dict(record)) + "\n")
            for logger in (*self.loggers, *LOGGERS):
                logger(record, self.folder)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl`; see `read_metrics`."""
        return read_metrics(self.folder)

    def keep_metrics(self, epochs: int) -> None:
        """Drop the lines after the first `epochs` epochs, which a resumed run will write again."""
        if self.writes:
            kept = [record for record in self.metrics() if record["epoch"] <= epochs]
            with atomic_write(self.folder / "metrics.jsonl") as temporary:
                temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`: what came out, and the run's configuration."""
        if self.writes:
            write_json(self.folder / "summary.json", {**summary, "config": self.config})

    def save(self, path: pathlib.Path, state: Mapping[str, Any]) -> None:
        """Write `state` (tensors and plain values) with the run's configuration to `path`, whole or not at all."""
        if self.writes:
            save_checkpoint(path, {**state, "config": self.config, "about": self.about})

    def load(self, path: pathlib.Path) -> dict[str, Any]:
        """Read what `save` wrote; the configuration must be this run's."""
        state = load_checkpoint(path)
        held = state.get("config")
        if not isinstance(held, dict):
            raise CheckpointError(f"{path} has no configuration: it was not written by a run")
        self._check_same(held, str(path))
        return state

    def load_best(self, module: nn.Module, part: str = "network") -> int | None:
        """Load the selected weights into a part of the step, and return the epoch they are of; None if none were.

        Raises:
            UserError: As `load_part`.
        """
        if not self.best_path.exists():
            return None
        load_part(module, self.best_path, part)
        try:
            return load_checkpoint(self.best_path)["record"]["epoch"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.best_path} does not say which epoch it is of") from error

    def _check_same(self, held: Mapping[str, Any], where: str) -> None:
        """Raise CheckpointError where `held`, which may be of an earlier version, differs from this configuration."""
        free = set(RUN_FIELDS)
        if self._config_type is not None:
            known = under_todays_names(self._config_type, held)
            held = plain(from_plain(self._config_type, held, where, "this program"))
            before, now = dict(flatten(held)), dict(flatten(self.config))
            self.grown = {
                name: (before[name], now[name])
                for name in getattr(self._config_type, "MAY_GROW", ())
                if now[name] > before[name]
            }
            free |= self.grown.keys() | {name for name in self._by_default() if name not in known}
        check_same_config(held, self.config, where, free)

    def _by_default(self) -> set[str]:
        """The fields, by dotted name, that have the value of the preset."""
        presets = getattr(self._config_type, "PRESETS", {})
        preset = presets.get(self.config.get("preset"))
        default = dict(flatten(plain(preset))) if preset is not None else {}
        return {name for name, value in flatten(self.config) if name in default and default[name] == value}


def new_folder(root: str | os.PathLike[str], name: str) -> pathlib.Path:
    """`root/NAME-DATE-TIME`, numbered where that is taken. The folder is not made."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = pathlib.Path(root) / f"{name}-{stamp}"
    number = 2
    while folder.exists():
        folder = pathlib.Path(root) / f"{name}-{stamp}-{number}"
        number += 1
    return folder


def read_config(folder: str | os.PathLike[str], config_type: type[C], program: str) -> C:
    """The configuration of a run folder.

    Args:
        folder: The run.
        config_type: The dataclass that the run was started with.
        program: What writes such runs, for messages.

    Raises:
        UserError: The folder holds no run, one of another program, or a broken configuration.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"no run in {folder}: expected a folder with config.json, as {program} writes")
    return from_plain(config_type, _held_config(path), str(path), program)


def _held_config(path: pathlib.Path) -> dict[str, Any]:
    held = parse_json(path.read_bytes(), str(path))
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} holds no configuration, but a {type(held).__name__}")
    return held


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a run folder's `metrics.jsonl`, oldest first; a line that is damaged or cut short is left out."""
    path = pathlib.Path(folder) / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("epoch"), int):
                records.append(record)
    return records
