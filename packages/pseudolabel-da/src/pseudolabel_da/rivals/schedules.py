"""How weights grow over training: Lee's weight of pseudo-labels, and the strength of gradient reversal."""

from __future__ import annotations

import math
from dataclasses import dataclass


def lee_weight(t: float, start: float = 100, end: float = 600, final: float = 3.0) -> float:
    r"""Lee's weight of the pseudo-labelled loss (2013, eq. 16): 0, then a line, then `final`.

    $$\alpha(t) = \alpha_f\, \mathrm{clamp}((t - T_1) / (T_2 - T_1), 0, 1)$$

    The paper closes its cases at both ends, where they agree. With start = end it is a step at that time.

    Args:
        t: Time, in the unit of start and end.
        start: $T_1$, until which the weight is 0.
        end: $T_2$, from which it is `final`; not before start.
        final: $\alpha_f$.

    Raises:
        ValueError: end lies before start.
    """
    if end < start:
        raise ValueError(f"end must not lie before start, got start {start} and end {end}")
    if t >= end:
        return final
    return 0.0 if t <= start else final * (t - start) / (end - start)


@dataclass(frozen=True)
class LeeSchedule:
    """`lee_weight` with its parameters fixed: call it with the time.

    As `Settings.pseudo_weight` its time is the epoch. Lee's method is that with `FixedThreshold(0.0)`, `period=1`,
    `relabel=True` and `passes="paired"`, but for labels given once an epoch instead of at every step.

    Attributes:
        start: Until when the weight is 0.
        end: From when it is `final`.
        final: The last weight.
    """

    start: float = 100
    end: float = 600
    final: float = 3.0

    def __post_init__(self) -> None:
        lee_weight(0, self.start, self.end, self.final)  # says what is wrong now, not in the middle of training

    def __call__(self, t: float) -> float:
        """The weight at time t."""
        return lee_weight(t, self.start, self.end, self.final)


def reversal_strength(progress: float, gamma: float = 10.0) -> float:
    r"""Strength of gradient reversal, $\lambda = 2 / (1 + e^{-\gamma p}) - 1$ (Ganin et al. 2016, section 5.2.2).

    Args:
        progress: Share p of training that is done, in [0, 1].
        gamma: Steepness.

    Returns:
        A number from 0 towards 1.
    """
    return math.tanh(gamma * progress / 2)  # the same function, without overflow
