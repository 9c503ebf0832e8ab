"""Fetching data sets."""

from __future__ import annotations

from robustvision_core.data.registry import Query
from robustvision_core.errors import DataError


def fetch(query: Query, torchvision_name: str) -> None:
    """Let torchvision download and check a data set into ``<root>/<name>``.

    Raises:
        DataError: It could not; the message says why.
    """
    from torchvision import datasets

    folder = query.root / query.name
    try:
        getattr(datasets, torchvision_name)(folder, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{query.name}: the download to {folder} failed: {error}") from error
