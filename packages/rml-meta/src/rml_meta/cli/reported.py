"""Accuracies that the paper reports (tables I and II), in percent: to stand beside measured ones, not to be expected.

Published without settings, code or the number of test tasks; some lie far from other reports of the same methods
(Baseline at 23.84 on miniImageNet 1-shot, where Chen et al. 2019 have 42.1).
"""

from __future__ import annotations

PROTOCOLS = {
    "mini": ("mini", ""),
    "cub": ("cub", ""),
    "sun": ("sun", ""),
    "mini-cub": ("mini", "cub"),
    "mini-sun": ("mini", "sun"),
    "cub-mini": ("cub", "mini"),
}
"""Base classes, and where validation and novel classes come from if not from the same set."""

_COLUMNS = [(protocol, shots) for protocol in PROTOCOLS for shots in (1, 5)]

_ROWS = {
    "metalstm": (24.99, 29.79, 36.23, 44.39, 30.99, 44.86, 23.77, 30.58, 25.52, 32.14, 22.58, 28.18),
    "maml": (45.69, 60.90, 48.87, 63.99, 57.75, 71.45, 40.29, 53.01, 46.07, 59.08, 33.36, 41.58),
    "reptile": (26.59, 39.87, 27.21, 42.35, 28.30, 51.62, 24.66, 40.86, 32.15, 50.38, 24.56, 40.60),
    "matchingnet": (47.63, 56.28, 53.06, 62.19, 55.02, 62.57, 38.34, 47.64, 39.58, 53.20, 26.23, 32.90),
    "protonet": (46.15, 65.56, 48.21, 57.80, 55.70, 67.32, 36.60, 54.36, 46.31, 66.21, 29.22, 38.73),
    "relationnet": (47.64, 63.65, 52.76, 64.71, 58.29, 72.15, 39.33, 50.64, 44.55, 61.45, 28.64, 38.01),
    "baseline": (23.84, 32.09, 25.14, 35.35, 27.44, 34.54, 24.16, 32.73, 25.49, 37.15, 22.98, 28.41),
    "baseline++": (30.15, 41.19, 32.48, 42.43, 35.56, 44.42, 29.40, 40.48, 30.44, 41.71, 23.41, 25.82),
    "rml": (48.55, 66.93, 54.53, 65.71, 59.48, 73.42, 41.06, 56.78, 48.93, 68.53, 33.78, 43.79),
}

REPORTED = {
    column: {method: values[place] for method, values in _ROWS.items()} for place, column in enumerate(_COLUMNS)
}
"""(protocol, shots) to method to accuracy."""
