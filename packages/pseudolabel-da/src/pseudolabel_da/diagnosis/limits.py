"""Where the verdicts begin. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CollapseLimits:
    """Where the verdicts begin.

    Attributes:
        liberal_share: Share of the pool that has a label, above which it may be too liberal,
        liberal_flips: when at least this share of labels is contradicted, and a larger one than a period ago.
        largest_share: The largest class may hold this share of labels plus half of an even share.
        effective_share: Effective classes below this share of K are too few.
        wrong_share: More wrong labels than this are estimated: the set cannot be trusted.
        tiny_share: A period that adds less than this share of the pool adds next to nothing,
        tiny_periods: which is too conservative when it happens this many times in a row.
    """

    liberal_share: float = 0.5
    liberal_flips: float = 0.1
    largest_share: float = 0.5
    effective_share: float = 1 / 3
    wrong_share: float = 0.17
    tiny_share: float = 0.001
    tiny_periods: int = 2
