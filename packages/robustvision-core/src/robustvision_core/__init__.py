"""Devices, the distributed runtime, dataset loaders and run records of the robustvision packages.

Import what you need from its module: `runtime`, `loop`, `run`, `data`, `metrics`, `plots`, `cli`.
"""

__version__ = "0.1.0"
