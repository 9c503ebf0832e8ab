"""Robust Meta Learning (invariant MAML) for few-shot image tasks, with its rival methods.

Everything below is imported on first use, and imports torch only.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the names stand in __init__.pyi
