"""Data sets by name: one table for image sets, one for domain pairs, one for pose sets."""

from robustvision_core.data.registry.query import Query, data_root
from robustvision_core.data.registry.table import Registry, Source

__all__ = ["Query", "Registry", "Source", "data_root"]
