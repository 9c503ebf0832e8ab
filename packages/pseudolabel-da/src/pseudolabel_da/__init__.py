"""Incremental pseudo-labelling that adapts any classifier to a new domain."""

__version__ = "0.1.0"
