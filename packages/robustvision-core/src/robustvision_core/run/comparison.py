"""Options of the verb `compare`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from robustvision_core.errors import UserError
from robustvision_core.run.options import Checks


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Checks):
    """A table and a picture of finished runs: the options that differ, the final figures, the curves by epoch."""

    runs: Positional[tuple[str, ...]]
    """Run folders, two or more; also of several programs."""
    out: str = "compare"
    """Folder for compare.csv and compare.png."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise UserError("compare needs two or more run folders, as in: compare runs/first runs/second")
