"""Checkpoints: tensors and plain values in one file that is written whole, checked when read, and executes nothing."""

from __future__ import annotations

import io
import os
import pathlib
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robustvision_core.errors import CheckpointError
from robustvision_core.run.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor, nn

BEST = "best.pt"


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write tensors and plain values to `path`. The file that was there stays until the new one is on the disk.

    Raises:
        OSError: The file cannot be written; the error names `path`.
    """
    import torch

    with atomic_write(path) as temporary, _Writer(io.FileIO(temporary, "wb")) as writer:
        try:
            torch.save(dict(state), writer)
        except RuntimeError:
            if writer.failed is not None:  # torch hides why a write failed
                raise writer.failed from None
            raise


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing any code in it. Every byte is checked against its CRC.

    Raises:
        CheckpointError: The file is missing, truncated, damaged, or not a checkpoint of tensors and plain values.
        OSError: It cannot be read.
    """
    import torch

    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    _check_content(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain values, and is not loaded") from error
    except Exception as error:  # a pickle can ask torch for anything
        raise CheckpointError(f"{path} is not a checkpoint that can be read{_instead(path)}") from error
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
    names = state if isinstance(state, dict) else {}
    weights = {str(n).removeprefix(prefix): value for n, value in names.items() if str(n).startswith(prefix)}
    if not weights:
        raise CheckpointError(f"{path} holds no {part}: give a checkpoint.pt or best.pt of a run")
    load_state(module, weights, f"{path} holds another {part}")


def load_state(module: nn.Module, state: Any, complaint: str) -> None:
    """Load a state into a module.

    Raises:
        CheckpointError: It does not fit; the message begins with `complaint`.
    """
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(f"{complaint}: {lines[-1].strip()}") from error


class _Writer(io.BufferedWriter):
    """Remembers why a write failed."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            raise


def _check_content(path: pathlib.Path) -> None:
    """Raise CheckpointError where the file is no zip archive, or a member's content is not what was written."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError:
        raise
    # RuntimeError is of a compression or encryption that zipfile does not know: a changed byte can ask for one
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a checkpoint{_instead(path)}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: its part {damaged} is not what was written{_instead(path)}")


def _instead(path: pathlib.Path) -> str:
    best = path.with_name(BEST)
    if path.name != BEST and best.is_file():
        return f": restore a whole copy, or take the selected weights in {best} (--which best)"
    return ": delete it, or restore a whole copy"
