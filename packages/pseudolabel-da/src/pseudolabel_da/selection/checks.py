"""What the parameters of the rules must be. Imports no torch, so that options are checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

GROWING = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the samples that hold a label after each period."""

Prior = Sequence[float] | Literal["predicted", "estimate"] | None


def check_rho(rho: float) -> None:
    """Raise ValueError unless rho is a finite number."""
    if not math.isfinite(rho):
        raise ValueError(f"rho must be a finite number, got {rho}")


def check_threshold(threshold: float) -> None:
    """Raise ValueError unless the threshold is in [0, 1]."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")


def check_floor(threshold: float, floor: float) -> None:
    """Raise ValueError unless both are in [0, 1]."""
    if not 0 <= threshold <= 1 or not 0 <= floor <= 1:
        raise ValueError(f"threshold and floor must be in [0, 1], got {threshold} and {floor}")


def check_shares(shares: Sequence[float]) -> None:
    """Raise ValueError unless there is a share and all lie in (0, 1]."""
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares must be one or more numbers in (0, 1], got {tuple(shares)}")


def check_prior(prior: Prior) -> None:
    """Raise ValueError unless the prior is None, a word, or shares that are not negative and not all 0."""
    if isinstance(prior, str):
        if prior not in ("predicted", "estimate"):
            raise ValueError(f"prior must be None, K shares, 'predicted' or 'estimate', got {prior!r}")
    elif prior is not None and (len(prior) == 0 or min(prior) < 0 or sum(prior) <= 0):
        raise ValueError(f"prior must have no share below 0 and one above, got {prior}")


def parse_prior(text: str) -> Prior:
    """The prior that a word or numbers with commas name: `even` is None.

    Raises:
        ValueError: The text names none.
    """
    if text == "even":
        return None
    if text == "predicted" or text == "estimate":
        return text
    try:
        prior = tuple(float(share) for share in text.split(","))
    except ValueError:
        raise ValueError(f"prior must be even, predicted, estimate, or numbers with commas, got {text!r}") from None
    check_prior(prior)
    return prior
