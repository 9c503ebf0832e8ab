"""Domain pairs by name."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

from robustvision_core.data.domains.pair import DomainPair
from robustvision_core.data.registry.table import Registry, Source

WHOLE = ("pair",)  # the one split that they have
PAIR = "of"  # what two image sets with a comma between them are called in the table

DOMAIN_PAIRS: Registry[DomainPair] = Registry(
    "domain pair",
    "robustvision.domains",
    {
        "mnist-mnistm": Source(
            "MNIST to MNIST-M, 28x28 RGB; options protocol, val, size, seed, backgrounds, photos",
            ".sources.digit_domains:load_mnist_mnistm",
            WHOLE,
        ),
        "fashion-fashionm": Source(
            "Fashion-MNIST to the same on backgrounds, 28x28 RGB; "
            "options protocol, val, size, seed, backgrounds, photos",
            ".sources.digit_domains:load_fashion_fashionm",
            WHOLE,
        ),
        "digits-shift": Source(
            "scikit-learn's digits to others of them on procedural backgrounds, 28x28 RGB, offline; "
            "options strength, val, size, seed",
            ".sources.digit_domains:load_digits_shift",
            WHOLE,
        ),
        "mnist-usps": Source(
            "MNIST to USPS, 28x28 grey; options val, size, seed", ".sources.digit_domains:load_mnist_usps", WHOLE
        ),
        "usps-mnist": Source(
            "USPS to MNIST, 28x28 grey; options val, size, seed", ".sources.digit_domains:load_usps_mnist", WHOLE
        ),
        "svhn-mnist": Source(
            "SVHN to MNIST, 32x32 RGB; options val, size, seed", ".sources.digit_domains:load_svhn_mnist", WHOLE
        ),
        "folder": Source(
            "two domains of your images, written folder:PATH:SOURCE:TARGET, with PATH/DOMAIN/<class>/<image>, or "
            "folder:SOURCE:TARGET with a path for each; the target's images may lie flat, without labels; "
            "options image_size, sizes, seed, max_gib",
            ".sources.folder_domains:load_folder_domains",
            WHOLE,
            takes_path=True,
        ),
        "of": Source(
            "any two image sets of the same classes, written SOURCE,TARGET, as csv:a.csv,csv:b.csv; "
            "options image_size, sizes, seed, max_gib",
            ".sources.paired:load_pair",
            WHOLE,
            takes_path=True,
        ),
    },
)


def domain_names() -> dict[str, str]:
    """Every name and what it is, in one line each."""
    held = DOMAIN_PAIRS.names()
    held["SOURCE,TARGET"] = held.pop(f"{PAIR}:PATH")
    return held


register_domains = functools.partial(DOMAIN_PAIRS.register, splits=WHOLE)
"""As `robustvision_core.data.register`, for `load(query, **options) -> DomainPair`."""


def load_domains(
    name: str,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    **options: Any,
) -> DomainPair:
    """Load a source and a target domain.

    Args:
        name: One of `domain_names`; or two image sets with a comma between, as `csv:a.csv,csv:b.csv`,
            `folder:photos,folder:drawings` or, where both are of one kind, `folder:photos,drawings`. Splits that the
            sets have are taken; those that they lack are drawn from `train`.
        root: The folder of all data sets, as for `robustvision_core.data.load`.
        download: Fetch what is missing, where the sources can.
        options: What the pair takes besides, as `seed` and `protocol` of mnist-mnistm.

    Raises:
        UserError: No such pair or option.
        DataError: Files are missing, truncated or hold what they must not; or the classes of the domains differ.
    """
    return DOMAIN_PAIRS.load(_written(name), WHOLE[0], root, download, options)


def domain_options(name: str) -> list[str]:
    """Names of the options that `load_domains` takes for a pair.

    Raises:
        UserError: No such pair.
    """
    return DOMAIN_PAIRS.source(_written(name).partition(":")[0]).options()


def _written(name: str) -> str:
    """The name of a pair as the table has it: two image sets are `of:SOURCE,TARGET`."""
    if re.fullmatch(r"folder:.+:[^:,]+:[^:,]+", name):  # the path may have a comma
        return name
    return f"{PAIR}:{name}" if "," in re.sub(r"\{[^{}]*\}", "", name) else name
