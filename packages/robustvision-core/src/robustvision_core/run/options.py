"""The options that all commands share: where and how a run runs, and which run is tested. Imports no torch."""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from robustvision_core.config import changed
from robustvision_core.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from robustvision_core.run.folder import Run
    from robustvision_core.run.runtime import Runtime

C = TypeVar("C")
SEEDS = 2**63  # torch takes twice as many, but every process adds its rank


class Checks:
    """What the `__post_init__` of a configuration checks its fields with, by dotted name those of groups in it."""

    def changed(self, **options: Any) -> Self:
        """This configuration with other values, by the names of options; see `robustvision_core.config.changed`."""
        return changed(self, **options)

    def at_least(self, least: float, *names: str) -> None:
        """Raise UserError where a field is below `least`."""
        for name in names:
            if not least <= attrgetter(name)(self) < math.inf:
                bound = f"at least {least}" if least else "0 or more"
                raise UserError(f"{name} must be {bound}, got {attrgetter(name)(self)}")

    def positive(self, *names: str) -> None:
        """Raise UserError where a field is not above 0."""
        for name in names:
            if not 0 < attrgetter(name)(self) < math.inf:
                raise UserError(f"{name} must be positive, got {attrgetter(name)(self)}")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Checks):
    """Where and how a run runs; the configuration of a training command derives from it.

    Raises:
        UserError: `devices` is below 1, `seed` has more than 64 bits, or `resume` is asked without `out`.
    """

    MAY_GROW: ClassVar[frozenset[str]] = frozenset({"epochs"})
    """Fields, by dotted name, that a resumed run may raise."""

    seed: int = 0
    """Weights, order and every other random choice of training."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: str = "auto"
    """Of the network: auto, fp32 or bf16."""
    devices: int = 1
    """Processes on this machine, one a GPU; several machines run under torchrun."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch missing data where that can be done."""
    out: str = ""
    """Run folder; empty makes a new one under runs/."""
    resume: bool = False
    """Go on with the run in the folder --out."""
    progress: bool = True
    """Show bars on a terminal."""
    tensorboard: bool = False
    """Write the figures of every epoch for TensorBoard too, to the run folder's tensorboard/."""

    def __post_init__(self) -> None:
        self.at_least(1, "devices")
        if not -SEEDS <= self.seed < SEEDS:
            raise UserError(f"seed must be a whole number of 64 bits, got {self.seed}")
        if self.resume and not self.out:
            raise UserError("--resume needs --out, the folder of the run to go on with")

    def open_run(self, name: str, runtime: Runtime) -> Run:
        """The run in `out`, or in a new folder `runs/NAME-DATE-TIME`; every process must call it."""
        from robustvision_core.run.folder import Run, new_folder  # here, for they import torch and the help must not
        from robustvision_core.run.loggers import TensorBoard

        board = TensorBoard() if self.tensorboard else None
        folder = self.out or runtime.from_main(str(new_folder("runs", name)))
        run = Run(pathlib.Path(folder), self, resume=self.resume, writes=runtime.is_main)
        run.loggers += [board] if board else []
        return run

    @contextlib.contextmanager
    def session(self, name: str) -> Iterator[tuple[Runtime, Run]]:
        """The processes and the run of a training command: open it before any other work.

        Until it ends the run folder is locked. At its end the processes wait for each other.

        Args:
            name: As in `open_run`.

        Raises:
            UserError: As `Run` and `Runtime.from_env`.
        """
        from robustvision_core.run.runtime import Runtime

        with (
            Runtime.session(self.device, self.precision, self.seed) as runtime,
            contextlib.closing(self.open_run(name, runtime)) as run,
        ):
            yield runtime, run
            runtime.barrier()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Checks):
    """Which run is tested, and where; the configuration of an evaluating command derives from it."""

    run: str
    """Run folder that training wrote."""
    which: Literal["checkpoint", "best"] = "checkpoint"
    """checkpoint (the last epoch) or best (the one that validation selected)."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch missing data where that can be done."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def trained(self, config_type: type[C], program: str, **changes: Any) -> C:
        """The configuration of the run, with the data root, download and device of this one.

        Args:
            config_type: The dataclass that the run was started with.
            program: What writes such runs, for messages.
            changes: Further fields to change.

        Raises:
            UserError: The folder holds no run, one of another program, or a broken configuration.
        """
        from robustvision_core.run.folder import read_config

        stored: Any = read_config(self.run, config_type, program)
        held = {field.name for field in fields(stored)}
        here = {"data_root": self.data_root, "download": self.download, "device": self.device, "resume": False}
        return replace(stored, **{name: value for name, value in here.items() if name in held}, **changes)

    def load_into(self, module: nn.Module, part: str = "network") -> None:
        """Load a part of the run's `checkpoint.pt` or `best.pt`, as `which` says; see `load_part`."""
        from robustvision_core.run.folder import load_part

        load_part(module, pathlib.Path(self.run) / f"{self.which}.pt", part)
