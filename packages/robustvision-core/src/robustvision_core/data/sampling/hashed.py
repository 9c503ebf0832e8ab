"""Random numbers addressed by what they are for, not by the order they are drawn in."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniform(seed: int, keys: tuple[Tensor | int, ...], count: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend on the seed, the keys and their place alone.

    A sample drawn by its keys is the same in any batch, order or process. The bits are those of the splitmix64
    generator's output function (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"),
    chained over seed, keys and place.

    Args:
        seed: Any integer.
        keys: Integers or int64 tensors that broadcast to one shape S.
        count: Numbers for each key.

    Returns:
        S + (count,) float32.
    """
    state = _mix(torch.as_tensor(seed, dtype=torch.int64))
    for key in keys:
        state = _mix(state + torch.as_tensor(key, dtype=torch.int64))
    bits = _mix(state[..., None] + torch.arange(count, device=state.device))
    return _shift(bits, 40).float() * 2.0**-24  # 24 bits fill a float32 exactly, so that 1 never comes


def _mix(state: Tensor) -> Tensor:
    """The splitmix64 output function on int64, which wraps around as unsigned arithmetic does."""
    state = state + _signed(GOLDEN)
    state = (state ^ _shift(state, 30)) * _signed(FIRST)
    state = (state ^ _shift(state, 27)) * _signed(SECOND)
    return state ^ _shift(state, 31)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shift right with zeros coming in; torch's own copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
