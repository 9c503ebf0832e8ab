"""Reading pickles of plain data without running what they hold."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import torch
from torch import Tensor

from robustvision_core.errors import DataError


def load_plain(raw: bytes, name: str) -> Any:
    """A pickle of dicts, lists, tuples, strings, bytes, numbers and byte arrays of NumPy.

    A pickle may name any function to call while it is read. Here every name leads to a stand-in of this module or to
    an error, so that nothing of the pickle's choice runs. Arrays come as uint8 tensors; strings of Python 2 as bytes.

    Args:
        raw: The pickle.
        name: What to call it in errors.

    Raises:
        DataError: It names anything else, is truncated, or an array does not hold unsigned bytes.
    """
    try:
        return _finish(_Unpickler(io.BytesIO(raw), encoding="bytes").load())
    except _Refused as error:
        raise DataError(f"{name} is refused: {error}") from error
    except Exception as error:  # the unpickler raises nearly anything on damaged input
        raise DataError(f"{name} is truncated or no pickle: {type(error).__name__}: {error}") from error


class _Refused(Exception):
    pass


class _DType:
    """Stand-in for numpy.dtype."""

    def __init__(self, code: str | bytes, align: object = False, copy: object = False) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, which unsigned bytes do not have."""


class _Array:
    """Stand-in for numpy.ndarray; NumPy's state is (version, shape, dtype, is_fortran, bytes)."""

    tensor: Tensor

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes]) -> None:
        _, shape, dtype, is_fortran, raw = state
        if not isinstance(dtype, _DType) or dtype.code != "u1":
            raise _Refused(f"an array of type {getattr(dtype, 'code', dtype)!r}, expected unsigned bytes (u1)")
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
            raise _Refused(f"an array of shape {tuple(shape)} with {len(raw)} bytes")
        flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
        self.tensor = flat.view(shape[::-1]).permute(*reversed(range(len(shape)))) if is_fortran else flat.view(shape)


def _reconstruct(kind: object, shape: object, dtype: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the protocols of Python 2."""
    if encoding != "latin1":
        raise _Refused(f"text in {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"it asks for {module}.{name}, which plain data does not need")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to objects outside itself")


def _finish(value: Any) -> Any:
    """`value` with tensors in the place of their stand-ins."""
    if isinstance(value, _Array):
        return value.tensor
    if isinstance(value, dict):
        return {key: _finish(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_finish(item) for item in value)
    return value
