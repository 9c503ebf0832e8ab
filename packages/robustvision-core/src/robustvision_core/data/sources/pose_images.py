"""Decoding the images of pose sets, which need the memory of whole photos."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from torch import Tensor

from robustvision_core.data.reading.decode import decode, decode_all
from robustvision_core.errors import DataError

MAX_GIB = 12.0


def decode_within(sources: Sequence[pathlib.Path | bytes], names: Sequence[str], about: str, max_gib: float) -> Tensor:
    """RGB images of one size as (N, 3, H, W) uint8; arguments as of `decode_all`.

    Raises:
        DataError: A file is no image, their sizes differ, or together they are larger than `max_gib`.
    """
    head = decode(sources[0], names[0])
    gib = len(sources) * head.numel() / 2**30
    if gib > max_gib:
        raise DataError(
            f"{about}: {len(sources)} images of {head.shape[2]}x{head.shape[1]} need {gib:.1f} GiB, more than max_gib "
            f"{max_gib:g}: raise it, or load fewer"
        )
    return decode_all(sources, names, about, grey=False, size=None)
