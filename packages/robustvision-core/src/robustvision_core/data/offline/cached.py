"""Results kept in a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def cached(
    folder: pathlib.Path,
    key: tuple[str | float, ...],
    shapes: dict[str, tuple[int, ...]],
    make: Callable[[], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """What `make` gives, from a file in `folder` where an earlier call has left it.

    A file that is damaged or of another key is made again. Where the folder cannot be written nothing is kept.

    Args:
        folder: Made where it is missing.
        key: All that the result depends on; begins with the name.
        shapes: Of each array of the result; a file with others counts as damaged.
        make: Makes the arrays.
    """
    text = repr(key)
    path = folder / f"{key[0]}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"
    held = _read(path, text, shapes)
    if held is None:
        held = make()
        with contextlib.suppress(OSError):  # a folder that cannot be written only costs the time to make it again
            _write(path, text, held)
    return held


def _read(path: pathlib.Path, text: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor] | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            if str(opened["key"]) != text:
                return None
            held = {name: torch.from_numpy(opened[name]) for name in shapes}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return held if all(tuple(held[name].shape) == shape for name, shape in shapes.items()) else None


def _write(path: pathlib.Path, text: str, held: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}.", delete=False) as file:
        temporary = pathlib.Path(file.name)
        try:
            arrays: dict[str, Any] = {name: value.numpy() for name, value in held.items()}
            np.savez(file, key=np.array(text), **arrays)
            file.close()
            os.replace(temporary, path)
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise
