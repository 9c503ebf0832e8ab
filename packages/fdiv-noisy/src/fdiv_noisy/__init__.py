"""Losses from f-divergences that need no noise rate and stay right when labels are wrong."""

__version__ = "0.1.0"
