"""The options that every training command shares: where and how a run runs."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from robustvision_core.errors import UserError

if TYPE_CHECKING:
    from robustvision_core.run.folder import Run
    from robustvision_core.run.runtime import Runtime


class Checks:
    """What the `__post_init__` of a configuration checks its fields with, by dotted name those of groups in it."""

    def at_least(self, least: float, *names: str) -> None:
        """Raise UserError where a field is below `least`."""
        for name in names:
            if not attrgetter(name)(self) >= least:
                bound = f"at least {least}" if least else "0 or more"
                raise UserError(f"{name} must be {bound}, got {attrgetter(name)(self)}")

    def positive(self, *names: str) -> None:
        """Raise UserError where a field is not above 0."""
        for name in names:
            if not attrgetter(name)(self) > 0:
                raise UserError(f"{name} must be positive, got {attrgetter(name)(self)}")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Checks):
    """Where and how a run runs; the configuration of a training command derives from it.

    Raises:
        UserError: `devices` is below 1, or `resume` is asked without `out`.
    """

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
    out: str = ""
    """Run folder; empty makes a new one under runs/."""
    resume: bool = False
    """Go on with the run in the folder --out."""
    progress: bool = True
    """Show bars on a terminal."""

    def __post_init__(self) -> None:
        self.at_least(1, "devices")
        if self.resume and not self.out:
            raise UserError("--resume needs --out, the folder of the run to go on with")

    def open_run(self, name: str, runtime: Runtime) -> Run:
        """The run in `out`, or in a new folder `runs/NAME-DATE-TIME`; every process must call it."""
        from robustvision_core.run.folder import Run, new_folder  # here, for they import torch and the help must not

        folder = self.out or runtime.from_main(str(new_folder("runs", name)))
        return Run(pathlib.Path(folder), self, resume=self.resume, writes=runtime.is_main)
