"""Robust Meta Learning (invariant MAML) for few-shot image tasks, with its rival methods."""

__version__ = "0.1.0"
