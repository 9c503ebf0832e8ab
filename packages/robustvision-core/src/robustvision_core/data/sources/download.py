"""Fetching data sets."""

from __future__ import annotations

from typing import Any

from robustvision_core.data.registry.query import Query
from robustvision_core.errors import DataError


def fetch(query: Query, torchvision_name: str, **options: Any) -> None:
    """Let torchvision download and check a data set into `<root>/<name>`.

    Args:
        query: Names the folder.
        torchvision_name: A class of `torchvision.datasets`.
        options: What its constructor takes besides, as the split.

    Raises:
        DataError: It could not; the message says why.
    """
    from torchvision import datasets

    folder = query.root / query.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        getattr(datasets, torchvision_name)(folder, download=True, **options)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{query.name}: the download to {folder} failed: {error}") from error
