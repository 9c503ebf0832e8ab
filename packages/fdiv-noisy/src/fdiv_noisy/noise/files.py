"""Files of labels: read safely, written whole."""

from __future__ import annotations

import os
import pathlib
import pickle
from typing import Any

import torch
from torch import Tensor

USUAL_KEY = "noise_label_train"
"""The key that the published files of Wei and Liu 2021 use."""


def load_labels(path: str | os.PathLike[str], key: str | None = None) -> Tensor:
    """Labels from a `.pt`, `.npy` or `.npz` file.

    Nothing in the file is executed: `.pt` files are read with `weights_only=True` (NumPy arrays in them, as in
    CIFAR-10N's, are allowed), NumPy files with `allow_pickle=False`.

    Args:
        path: The file. The NumPy kinds need NumPy.
        key: Which entry of a file that holds several. Not needed where there is one entry, or one called
            `noise_label_train`. CIFAR-10N has `worse_label`, `aggre_label`, `random_label1` and others.

    Returns:
        (N,) int64. Labels of shape (N, 1), and whole numbers stored as floats, are accepted.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind, cannot be read, lacks the key, or holds no labels.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no label file at {path}")
    if path.suffix in (".pt", ".pth"):
        content = _read_torch(path)
    elif path.suffix in (".npy", ".npz"):
        content = _read_numpy(path)
    else:
        raise ValueError(f"{path}: label files are .pt, .pth, .npy or .npz")
    return _as_labels(_entry(content, key, path), path)


def save_labels(path: str | os.PathLike[str], labels: Tensor, *, clean: Tensor | None = None) -> None:
    """Write labels as a `.pt` file in the published layout; a reader sees the old file or the new one, never half.

    Args:
        path: The file, `.pt` or `.pth`; its folder must exist.
        labels: (N,) int64, stored under `noise_label_train`.
        clean: (N,) int64 clean labels to store under `clean_label_train`, or None.

    Raises:
        ValueError: Labels are not int64 of shape (N,), or the file is of another kind.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".pt", ".pth"):
        raise ValueError(f"{path}: label files are written as .pt or .pth")
    content = {USUAL_KEY: labels} if clean is None else {USUAL_KEY: labels, "clean_label_train": clean}
    for name, value in content.items():
        if value.ndim != 1 or value.dtype != torch.int64 or value.shape != labels.shape:
            raise ValueError(f"{name} must be int64 of shape (N,), got {value.dtype} {tuple(value.shape)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save({name: value.cpu().clone() for name, value in content.items()}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_torch(path: pathlib.Path) -> Any:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            with torch.serialization.safe_globals(_numpy_globals()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise ValueError(
            f"{path}: not a file of tensors or arrays that can be read safely, or damaged ({_last_line(error)})"
        ) from error


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _numpy_globals() -> list[Any]:
    """What a pickled array of numbers refers to, under the module names of NumPy 1 and 2, and nothing more."""
    import numpy as np

    rebuild = np.empty(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]
    kinds = {type(np.dtype(kind)) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")}
    return [*((rebuild, name) for name in names), np.ndarray, np.dtype, *kinds]


def _read_numpy(path: pathlib.Path) -> Any:
    import numpy as np

    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            return content if path.suffix == ".npy" else {name: content[name] for name in content.files}
    except Exception as error:  # as above; a header may ask for more memory than there is
        raise ValueError(f"{path}: not a NumPy file of numbers, or damaged ({_last_line(error)})") from error


def _entry(content: Any, key: str | None, path: pathlib.Path) -> Any:
    if not isinstance(content, dict):
        if key is not None:
            raise ValueError(f"{path}: asked for the entry {key!r}, but the file is one {type(content).__name__}")
        return content
    present = {str(name): value for name, value in content.items() if value is not None}
    if key is None and USUAL_KEY in present:
        key = USUAL_KEY
    if key is None and len(present) == 1:
        key = next(iter(present))
    if key not in present:
        asked = "several entries, say which by key" if key is None else f"no entry {key!r}"
        raise ValueError(f"{path}: {asked}; it has {', '.join(present) or 'none'}")
    return present[key]


def _as_labels(value: Any, path: pathlib.Path) -> Tensor:
    try:
        labels = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: expected a tensor or array of labels, got {type(value).__name__}") from error
    if labels.layout != torch.strided or labels.is_quantized or labels.is_meta:
        raise ValueError(f"{path}: expected a plain tensor of labels, got a sparse, quantised or empty one")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{path}: expected labels of shape (N,) or (N, 1), got {tuple(labels.shape)}")
    whole = labels.to(torch.int64)
    if labels.is_complex() or labels.dtype == torch.bool or not bool((whole == labels).all()):
        raise ValueError(f"{path}: expected whole numbers, got {labels.dtype} values that are not")
    return whole
