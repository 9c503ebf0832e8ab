"""Where half precision of a network ends."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """`x` in float32 where it is of half precision, else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of `x`: what is computed there keeps the precision of its inputs."""
    return torch.autocast(x.device.type, enabled=False)
