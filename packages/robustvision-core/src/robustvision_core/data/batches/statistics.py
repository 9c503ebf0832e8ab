"""Mean and standard deviation of a set's channels, and images normalised by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet
from robustvision_core.errors import DataError

CHUNK = 2**16  # images counted at once

Statistic = float | Sequence[float] | Tensor


def channel_stats(data: ImageSet) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all pixels, (C,) float32 each on the scale 0..1.

    Computed exactly from the histogram of grey levels. The deviation is the population's; that of a constant channel
    is given as 1, so that dividing by it is harmless.

    Raises:
        DataError: The set is empty.
    """
    if len(data) == 0:
        raise DataError(f"{data.name} is empty: it has no mean and standard deviation")
    counts = torch.zeros(data.shape[0], 256, dtype=torch.int64)
    for part in data.images.split(CHUNK):
        for c in range(data.shape[0]):
            counts[c] += torch.bincount(part[:, c].reshape(-1), minlength=256).cpu()
    share = counts.double()
    share = share / share.sum(1, keepdim=True)
    levels = torch.linspace(0, 1, 256, dtype=torch.float64)
    mean = share @ levels
    std = (share * (levels - mean[:, None]).square()).sum(1).sqrt()
    std = torch.where((share > 0).sum(1) > 1, std, 1.0)
    return mean.float().to(data.device), std.float().to(data.device)


def normalise(images: Tensor, mean: Tensor, std: Tensor, scale: float = 255) -> Tensor:
    """`(images / scale - mean) / std` as one affine map.

    Args:
        images: (B, C, H, W) uint8, or float with `scale=1` where they are on the scale 0..1 already.
        mean: (C,) float on the scale 0..1.
        std: (C,) float, positive.
        scale: The value of white.

    Returns:
        (B, C, H, W) of the type of `mean`.
    """
    factor, offset = (1 / (scale * std))[:, None, None], (-mean / std)[:, None, None]
    # cast first, then in place: one mixed-type product was measured 20 times slower on the CPU
    return images.to(mean.dtype, copy=True).mul_(factor).add_(offset)


def resolve_stats(data: ImageSet, mean: Statistic | None, std: Statistic | None) -> tuple[Tensor, Tensor]:
    """`mean` and `std` as (C,) float32 on the set's device, computed by `channel_stats` where None."""
    computed = channel_stats(data) if mean is None or std is None else (mean, std)
    chosen = [given if given is not None else own for given, own in zip((mean, std), computed, strict=True)]
    mean_of, std_of = (channel_vector(value, data.shape[0], data.device) for value in chosen)
    if bool((std_of <= 0).any()):
        raise DataError(f"std must be positive, got {std_of.tolist()}")
    return mean_of, std_of


def channel_vector(value: Statistic, channels: int, device: str | torch.device = "cpu") -> Tensor:
    """`value` as (channels,) float32; one number stands for all channels."""
    vector = torch.as_tensor(value, dtype=torch.float32, device=device).reshape(-1)
    if len(vector) not in (1, channels):
        raise DataError(f"mean and std need 1 or {channels} values, one a channel, got {len(vector)}")
    return vector.expand(channels).clone()
