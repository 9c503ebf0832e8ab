"""Grey figures on colour backgrounds by absolute difference, as MNIST-M is made."""

from __future__ import annotations

import torch
from torch import Tensor

from robustvision_core.data.image_set import describe
from robustvision_core.errors import DataError

CHUNK = 1024  # images blended at once; more would leave the cache


def blend(figures: Tensor, backgrounds: Tensor, *, binarise: bool = True) -> Tensor:
    r"""Each figure in the colours of its background turned over: $|figure - background|$.

    Ganin and Lempitsky 2015, "Unsupervised domain adaptation by backpropagation", section 4, formula
    $I_{ijk} = |I^1_{ijk} - I^2_{ijk}|$. A binarised figure leaves the background where it is black and gives
    `255 - background` where it is white, so that blending the result again gives the background back. The published
    sets are binarised.

    Args:
        figures: (N, 1, H, W) or (N, 3, H, W) uint8.
        backgrounds: (N, 3, H, W) uint8.
        binarise: Take every figure's pixel above 0 as white, 255.

    Returns:
        (N, 3, H, W) uint8.

    Raises:
        DataError: A tensor has another shape or type.
    """
    fits = figures.shape == backgrounds.shape or figures.shape == backgrounds[:, :1].shape
    if figures.dtype != torch.uint8 or backgrounds.dtype != torch.uint8 or backgrounds.dim() != 4 or not fits:
        raise DataError(
            f"blend: figures are {describe(figures)} and backgrounds {describe(backgrounds)}, expected (N, 1, H, W) or "
            "(N, 3, H, W) and (N, 3, H, W) uint8"
        )
    blended = torch.empty_like(backgrounds)
    for start in range(0, len(backgrounds), CHUNK):
        part = slice(start, start + CHUNK)
        levels = (figures[part] > 0).short() * 255 if binarise else figures[part].short()
        blended[part] = (levels - backgrounds[part].short()).abs_()  # int16: bytes would wrap around
    return blended
