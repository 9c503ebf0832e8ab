"""Random numbers of a shape, of the type and device of another tensor, from a generator or torch's global one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform on [0, 1)."""
    return torch.rand(*shape, **_options(like, generator))


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal."""
    return torch.randn(*shape, **_options(like, generator))


def _options(like: Tensor, generator: torch.Generator | None) -> dict[str, Any]:
    """The generator only where there is one: exported programs with an open batch size take none."""
    given = {} if generator is None else {"generator": generator}
    return {"dtype": like.dtype, "device": like.device, **given}
