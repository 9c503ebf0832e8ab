"""What a checkpoint says of the network in it, so that it can be used without the data it was trained on."""

from __future__ import annotations

import importlib.metadata
import pathlib
from collections.abc import Sequence
from typing import Any

from robustvision_core.errors import CheckpointError, UserError
from robustvision_core.predict.preprocessing import Preprocessing
from robustvision_core.run.folder import load_checkpoint

VERSIONS = ("torch", "robustvision-core")


def describe(program: str, preprocessing: Preprocessing, classes: Sequence[str], **more: Any) -> dict[str, Any]:
    """What a run writes beside its weights: give it to `Run.about` before training.

    Args:
        program: What trained it, as in `"fdiv-noisy"`.
        preprocessing: Of its images.
        classes: Name of each class.
        more: What the program needs besides to build the network again; plain values.
    """
    versions = {name: importlib.metadata.version(name) for name in (program, *VERSIONS)}
    own = {"program": program, "versions": versions, "preprocessing": preprocessing.plain(), "classes": list(classes)}
    return own | more


def read_about(folder: str | pathlib.Path, which: str = "auto") -> tuple[pathlib.Path, dict[str, Any]]:
    """The checkpoint that `which` (auto, best or checkpoint) names in a run folder, and what it says of itself.

    Raises:
        UserError: There is no such checkpoint, it is damaged, or was written before checkpoints described themselves.
    """
    folder = pathlib.Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"no run in {folder}: expected a folder with config.json, as training writes")
    name = which if which != "auto" else ("best" if (folder / "best.pt").is_file() else "checkpoint")
    path = folder / f"{name}.pt"
    about = load_checkpoint(path).get("about")
    if not isinstance(about, dict) or not {"program", "preprocessing", "classes"} <= about.keys():
        raise CheckpointError(
            f"{path} does not say which classes and preprocessing it has: it is of an earlier version; go on with its "
            "training for an epoch (--resume), or train anew"
        )
    return path, about
