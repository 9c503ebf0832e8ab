"""The rule of selection that settings name."""

from __future__ import annotations

from pseudolabel_da.selection.checks import parse_prior
from pseudolabel_da.selection.flexible import FlexThreshold
from pseudolabel_da.selection.ican import ICANSelector
from pseudolabel_da.selection.rule import AdaptiveThreshold, FixedThreshold, Selector
from pseudolabel_da.selection.shares import ClassBalancedShare, TopShare


def make_selector(
    name: str, *, rho: float, ceiling_aware: bool, threshold: float, shares: tuple[float, ...], prior: str
) -> Selector:
    """The rule of a name, with the parameters it takes of those given; `ican` is that of method ican."""
    return {
        "adaptive": lambda: AdaptiveThreshold(rho, ceiling_aware),
        "fixed": lambda: FixedThreshold(threshold),
        "flex": lambda: FlexThreshold(threshold),
        "balanced": lambda: ClassBalancedShare(shares, parse_prior(prior)),
        "top": lambda: TopShare(shares),
        "ican": lambda: ICANSelector(rho),
    }[name]()
