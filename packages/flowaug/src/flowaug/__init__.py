"""Per-image augmentation distributions from conditional normalizing flows.

Everything below is imported on first use: torch and normflows for the flows, kornia for colour only.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the names stand in __init__.pyi
