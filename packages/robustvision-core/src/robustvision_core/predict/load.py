"""A predictor from a run folder, whichever package trained it."""

from __future__ import annotations

import importlib.metadata
import pathlib

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.predict.about import read_about
from robustvision_core.predict.predictor import Predictor

GROUP = "robustvision.predictors"
"""Entry points `program = module:function`, `function(folder, which, device)` giving a `Predictor`."""


def load_run(folder: str | pathlib.Path, which: str = "auto", device: str = "auto") -> Predictor:
    """What a trained run predicts with: its network, preprocessing and classes. Its data is not needed.

    Args:
        folder: The run folder.
        which: `best`, `checkpoint`, or `auto` for best where there is one.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: The folder holds no run, a damaged one, or one of a package that is not installed.
    """
    _, about = read_about(folder, which)
    known = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    if about["program"] not in known:
        if not known:
            raise UserError(f'{folder} was trained by {about["program"]}: pip install "{about["program"]}[train]"')
        raise unknown_name(f"program that trained {folder}", str(about["program"]), known)
    return known[about["program"]].load()(folder, which, device)
