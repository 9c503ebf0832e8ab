"""Where values may be looked at, and constants that stay on their device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


def plain() -> bool:
    """Whether tensors hold plain values: no graph is being traced, no transform of `torch.func` is at work."""
    return not (torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling())


def readable(value: Tensor) -> bool:
    """Whether a branch may depend on the entries of `value`.

    Off the CPU the host would wait for the device; under `torch.func.vmap` and in `torch.export` nothing can be read.
    """
    return value.device.type == "cpu" and plain()


class Kept(Protocol[P, T_co]):
    """A function whose results are kept."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """The result, made or kept."""
        ...

    def cache_clear(self) -> None:
        """Forget all results."""


def kept(make: Callable[P, T_co]) -> Kept[P, T_co]:
    """Call `make` once for every set of arguments; anew where its tensors would belong to a graph or a transform.

    A constant made on the host and copied in every call would wait for the device.
    """
    held = functools.cache(torch.inference_mode(False)(make))

    @functools.wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> T_co:
        return held(*args, **kwargs) if plain() else make(*args, **kwargs)

    get.cache_clear = held.cache_clear  # type: ignore[attr-defined]
    return cast(Kept[P, T_co], get)
