"""The folder that a run leaves behind.

`config.json` what was asked, `metrics.jsonl` one line an epoch, `summary.json` what came out, `checkpoint.pt`
the last complete state, `best.pt` the selected weights, `plots/*.png`. Every file but the growing
`metrics.jsonl` is replaced whole, so that a killed run leaves the last complete one.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from robustvision_core.config import check_same_config, from_plain, plain
from robustvision_core.errors import CheckpointError, UserError
from robustvision_core.run.files import atomic_write, write_json
from robustvision_core.run.lock import FolderLock

if TYPE_CHECKING:
    from torch import Tensor, nn

C = TypeVar("C")


class Run:
    """A run directory.

    Args:
        folder: Where the run lives; made if it is missing.
        config: What was asked: a dataclass instance or a mapping of plain values.
        resume: Go on from the folder's checkpoint. Without it a folder that holds a run is refused.
        writes: Whether this process writes (rank 0 only); the others read.

    The process that writes holds the folder's lock from here on until `close`, so that a run has one writer.

    Raises:
        UserError: The folder holds another run, is a file, is written by another process, or there is none to resume.
        CheckpointError: The configuration differs from that of the run to resume, or is unreadable.
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
        if self.writes and not self.resume:
            self._refuse_another()
            write_json(self.folder / "config.json", self.config)

    def close(self) -> None:
        """Let others write to the folder."""
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
        """Append one line to `metrics.jsonl`."""
        if self.writes:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as lines:
                lines.write(json.dumps(dict(record)) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of `metrics.jsonl`; a last line that a crash cut short is left out."""
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
        self._check_same(state.get("config", {}), str(path))
        return state

    def load_best(self, module: nn.Module, part: str = "network") -> int | None:
        """Load the selected weights into a part of the step, and return the epoch they are of; None if none were.

        Raises:
            UserError: As `load_part`.
        """
        if not self.best_path.exists():
            return None
        load_part(module, self.best_path, part)
        return load_checkpoint(self.best_path)["record"]["epoch"]

    def _check_same(self, held: Mapping[str, Any], where: str) -> None:
        """Raise CheckpointError where `held`, which may be of an earlier version, differs from this configuration."""
        if self._config_type is not None:
            held = plain(from_plain(self._config_type, held, where, "this program"))
        check_same_config(held, self.config, where)


def new_folder(root: str | os.PathLike[str], name: str) -> pathlib.Path:
    """`root/NAME-DATE-TIME`, numbered where that is taken. The folder is not made."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = pathlib.Path(root) / f"{name}-{stamp}"
    number = 2
    while folder.exists():
        folder = pathlib.Path(root) / f"{name}-{stamp}-{number}"
        number += 1
    return folder


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write tensors and plain values to `path` through a temporary file."""
    import torch

    with atomic_write(path) as temporary:
        torch.save(dict(state), temporary)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing any code in it.

    Raises:
        CheckpointError: The file is missing, truncated, or not a checkpoint of tensors and plain values.
    """
    import torch

    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain values, and is not loaded") from error
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is truncated or not a checkpoint: delete it, or restore a whole copy") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a checkpoint dictionary")
    return state


def load_part(module: nn.Module, path: str | os.PathLike[str], part: str = "network") -> None:
    """Load one part of a training step from a checkpoint that `fit` wrote.

    Args:
        module: Takes the weights.
        path: A `checkpoint.pt` or `best.pt`.
        part: Name of the part within the step.

    Raises:
        UserError: The checkpoint is unreadable, or holds no such part, or one of another shape.
    """
    state: dict[str, Tensor] = load_checkpoint(path).get("step", {})
    prefix = f"{part}."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not weights:
        raise CheckpointError(f"{path} holds no {part}: give a checkpoint.pt or best.pt of a run")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} holds another {part}: {str(error).splitlines()[-1].strip()}") from error


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
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}; it was cut short or changed") from error
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} holds no configuration, but a {type(held).__name__}")
    return held


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a run folder's `metrics.jsonl`, oldest first."""
    path = pathlib.Path(folder) / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
