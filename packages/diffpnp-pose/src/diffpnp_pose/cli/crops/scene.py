"""What surrounds and covers an object in a crop: backgrounds, things before it, light, blur and noise."""

from __future__ import annotations

import pathlib

import torch
from robustvision_core.data import Photos, draw_backgrounds, read_photos
from torch import Tensor
from torch.nn import functional

_BANK = 2048  # backgrounds kept
_GRID = 4  # cells a side of the noise that gives things before the object their outline


def backgrounds(folder: str, size: tuple[int, int], seed: int, stream: int) -> Tensor:
    """(M, 3, H, W) uint8: crops of the photos in a folder or archive, drawn textures where it is empty."""
    side, index = max(size), torch.arange(_BANK)
    if not folder:
        drawn = draw_backgrounds(index, side, seed, stream)
    else:
        photos = _large_enough(read_photos(pathlib.Path(folder).expanduser(), "train"), side)
        drawn = photos.crops(index, side, seed, stream)
    return drawn[:, :, : size[1], : size[0]].contiguous()


def _large_enough(photos: Photos, side: int) -> Photos:
    """The photos, enlarged where one is smaller than a crop."""
    if int(photos.sizes.min()) >= side:
        return photos
    starts = (3 * photos.sizes.prod(1)).cumsum(0) - 3 * photos.sizes.prod(1)
    held = []
    for start, (height, width) in zip(starts.tolist(), photos.sizes.tolist(), strict=True):
        image = photos.pixels[start : start + 3 * height * width].view(1, 3, height, width).float()
        shape = [max(side, round(length * side / min(height, width))) for length in (height, width)]
        grown = image if min(height, width) >= side else functional.interpolate(image, shape, mode="bilinear")
        held.append(grown[0].round().clamp(0, 255).to(torch.uint8))
    return Photos.of(held, photos.name)


def compose(images: Tensor, bank: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [0, 1]: images (B, 4, H, W), colours times coverage and coverage, before random backgrounds."""
    behind = _pick(bank, len(images), generator)
    return images[:, :3] + (1 - images[:, 3:]) * behind


def cover(scenes: Tensor, bank: Tensor, share: float, largest: float, generator: torch.Generator) -> Tensor:
    """Scenes (B, 3, H, W), a `share` of which has something before it that hides up to `largest` of the image.

    What covers is a texture of the bank within an outline of smooth noise.
    """
    count, (height, width) = len(scenes), scenes.shape[-2:]
    drawn = torch.rand(count, 2, generator=generator)
    noise = torch.rand(count, 1, _GRID, _GRID, generator=generator)
    relief = functional.interpolate(noise, (height, width), mode="bicubic", align_corners=True)
    hidden = largest * drawn[:, 1] * (drawn[:, 0] < share)
    rank = relief.flatten(1).sort(1).values
    level = rank.gather(1, ((1 - hidden) * (height * width - 1)).long()[:, None])[..., None, None]
    mask = ((relief - level) * 4 * _GRID).clamp(0, 1) * (hidden > 0)[:, None, None, None]
    return torch.lerp(scenes, _pick(bank, count, generator), mask)


def photograph(scenes: Tensor, generator: torch.Generator) -> Tensor:
    """Scenes (B, 3, H, W) in [0, 1] under another light and through another lens: exposure, tint, contrast, saturation,
    blur and noise."""
    drawn = 2 * torch.rand(len(scenes), 8, 1, 1, 1, generator=generator) - 1
    grey = scenes.mean((1, 2, 3), keepdim=True)
    scenes = grey + (scenes - grey) * 1.6 ** drawn[:, 0]
    level = scenes.mean(1, keepdim=True)
    scenes = level + (scenes - level) * (1 + 0.5 * drawn[:, 1])
    tint = 1.12 ** drawn[:, 2:5, 0].squeeze(-1).unsqueeze(-1).unsqueeze(-1).view(-1, 3, 1, 1)
    scenes = scenes * tint * 1.4 ** drawn[:, 5]
    scenes = _blurred(scenes, 0.9 * (drawn[:, 6].flatten() + 1))
    noise = torch.randn(scenes.shape, generator=generator) * 0.02 * (drawn[:, 7] + 1)
    return (scenes + noise).clamp_(0, 1)


def _blurred(scenes: Tensor, sigma: Tensor) -> Tensor:
    """Each scene (3, H, W) under a Gaussian of its own deviation in pixels, cut off at three pixels."""
    reach = torch.arange(-3, 4)
    weights = (-0.5 * (reach / sigma.clamp_min(0.1)[:, None]) ** 2).exp()
    kernel = (weights / weights.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = scenes.reshape(1, -1, *scenes.shape[-2:])
    padded = functional.pad(flat, (3, 3, 3, 3), mode="replicate")
    across = functional.conv2d(padded, kernel[:, None, None, :], groups=flat.shape[1])
    return functional.conv2d(across, kernel[:, None, :, None], groups=flat.shape[1]).view(scenes.shape)


def _pick(bank: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, H, W) in [0, 1] of the bank, half of them mirrored."""
    rows = torch.randint(len(bank), (count,), generator=generator)
    chosen = bank[rows].float().div_(255)
    flips = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(flips, chosen.flip(-1), chosen)
