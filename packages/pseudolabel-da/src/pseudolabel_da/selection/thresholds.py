"""The paper's adaptive threshold, and the ceiling that label smoothing puts on confidence."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def adaptive_threshold(accuracy: float | Tensor, rho: float = 3.0) -> Tensor:
    r"""The confidence that a pseudo-label must exceed: $\tau = 1 / (1 + e^{-\rho\, acc})$ (section 3.3).

    It lies between 1/2 and $\sigma(\rho)$ (0.953 for rho 3, 0.982 for rho 4), rises with the accuracy, and knows
    nothing of the number of classes.

    Args:
        accuracy: Share of the source validation set that is right, in [0, 1], of any shape.
        rho: Steepness. The paper advises 3 to 4; at 0 or below the threshold no longer exceeds 1/2, which warns.

    Returns:
        The threshold of the accuracy's shape, float64 for a Python number.

    Raises:
        ValueError: The accuracy is a Python number outside [0, 1].
    """
    if rho <= 0:
        warnings.warn(f"rho should be above 0, got {rho}: the threshold is at most 1/2", UserWarning, stacklevel=2)
    if not isinstance(accuracy, Tensor):
        if not 0 <= accuracy <= 1:
            raise ValueError(f"accuracy must be a share in [0, 1], got {accuracy}")
        accuracy = torch.tensor(accuracy, dtype=torch.float64)
    return torch.sigmoid(rho * accuracy)


def confidence_ceiling(label_smoothing: float, classes: int) -> float:
    """The largest probability at the optimum of cross-entropy with label smoothing: 1 - a + a / K.

    A threshold above it selects nothing but overshoot. That is how the published schedule stalls: a = 0.15 over ten
    classes gives 0.865, while the threshold at rho 3 exceeds 0.865 for every accuracy above 0.62.

    Args:
        label_smoothing: a, in [0, 1].
        classes: K, at least 2.

    Raises:
        ValueError: One of them is outside its range.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    return 1 - label_smoothing + label_smoothing / classes
