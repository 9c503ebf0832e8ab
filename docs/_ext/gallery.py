"""What each tutorial starts from, whichever ran before it in the same process."""

from __future__ import annotations

from typing import Any

import torch


def reset(config: dict[str, Any], script: str) -> None:
    """One thread, float32 and a fixed seed."""
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    torch.manual_seed(0)
