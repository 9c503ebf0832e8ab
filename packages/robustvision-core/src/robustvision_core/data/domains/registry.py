"""Domain pairs by name."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from robustvision_core.data.domains.pair import DomainPair
from robustvision_core.data.registry import Source, described, look_up, register

_SOURCES: dict[str, Source] = {}
_WHOLE = "pair"  # the one split that they have

register_domains = functools.partial(register, splits=(_WHOLE,), table=_SOURCES)
"""As `robustvision_core.data.register`, for `load(query, **options) -> DomainPair`."""


def domain_names() -> dict[str, str]:
    """Every domain pair and what it is, in one line each; those that need a path are written `name:PATH`."""
    return described(_sources())


def load_domains(
    name: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    **options: Any,
) -> DomainPair:
    """Load a source and a target domain.

    Args:
        name: One of `domain_names`.
        root: The folder of all data sets, as for `robustvision_core.data.load`.
        download: Fetch what is missing, where the sources can.
        options: What the pair takes besides, as `seed` and `protocol` of mnist-mnistm.

    Raises:
        UserError: No such pair or option.
        DataError: Files are missing, truncated or hold what they must not; or the classes of the domains differ.
    """
    return look_up(_sources(), "domain pair", name, _WHOLE, root, download, options)


def _sources() -> dict[str, Source]:
    importlib.import_module("robustvision_core.data.sources")  # here, for its modules import this one
    return _SOURCES
