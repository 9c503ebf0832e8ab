"""One module a family of data sets; importing this registers them all."""

from robustvision_core.data.sources import digits, idx

__all__ = ["digits", "idx"]
