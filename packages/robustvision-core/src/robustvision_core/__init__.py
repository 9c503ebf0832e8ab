"""Devices, the distributed runtime, dataset loaders and run records of the robustvision packages."""

__version__ = "0.1.0"
