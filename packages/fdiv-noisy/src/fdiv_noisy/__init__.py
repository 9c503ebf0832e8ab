"""Losses from f-divergences that need no noise rate and stay right when labels are wrong.

Everything below is imported on first use, and imports torch only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fdiv_noisy.adaptors import as_hf_loss
    from fdiv_noisy.auto import auto_loss
    from fdiv_noisy.divergences import DIVERGENCES, Divergence
    from fdiv_noisy.estimation import NoiseReport, estimate
    from fdiv_noisy.labels import class_prior
    from fdiv_noisy.losses import FDivergenceLoss, f_divergence_loss
    from fdiv_noisy.pair_conditional import PairConditionalLoss, pair_conditional_loss
    from fdiv_noisy.rivals import (
        BackwardCorrection,
        DMILoss,
        ForwardCorrection,
        GCELoss,
        MAELoss,
        NCERCELoss,
        PeerLoss,
        SCELoss,
    )
    from fdiv_noisy.schedules import WarmUp, piecewise_linear
    from fdiv_noisy.transition import Sparse, Uniform, from_cleanlab, to_cleanlab

__version__ = "0.1.0"

_ROOMS = {
    "adaptors": ["as_hf_loss"],
    "auto": ["auto_loss"],
    "divergences": ["DIVERGENCES", "Divergence"],
    "estimation": ["NoiseReport", "estimate"],
    "labels": ["class_prior"],
    "losses": ["FDivergenceLoss", "f_divergence_loss"],
    "pair_conditional": ["PairConditionalLoss", "pair_conditional_loss"],
    "rivals": [
        "BackwardCorrection",
        "DMILoss",
        "ForwardCorrection",
        "GCELoss",
        "MAELoss",
        "NCERCELoss",
        "PeerLoss",
        "SCELoss",
    ],
    "schedules": ["WarmUp", "piecewise_linear"],
    "transition": ["Sparse", "Uniform", "from_cleanlab", "to_cleanlab"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "DIVERGENCES",
    "BackwardCorrection",
    "DMILoss",
    "Divergence",
    "FDivergenceLoss",
    "ForwardCorrection",
    "GCELoss",
    "MAELoss",
    "NCERCELoss",
    "NoiseReport",
    "PairConditionalLoss",
    "PeerLoss",
    "SCELoss",
    "Sparse",
    "Uniform",
    "WarmUp",
    "as_hf_loss",
    "auto_loss",
    "class_prior",
    "estimate",
    "f_divergence_loss",
    "from_cleanlab",
    "pair_conditional_loss",
    "piecewise_linear",
    "to_cleanlab",
]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"fdiv_noisy.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'fdiv_noisy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
