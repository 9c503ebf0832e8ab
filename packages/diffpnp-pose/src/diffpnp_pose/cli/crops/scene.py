"""What surrounds and covers an object in a crop: backgrounds, things before it, light, blur and noise."""

from __future__ import annotations

import pathlib

import torch
from robustvision_core.data import Photos, draw_backgrounds, read_photos
from torch import Tensor
from torch.nn import functional

from diffpnp_pose.cli.recipes import CropOptions

_BANK = 2048  # backgrounds kept
_GRID = 4  # cells a side of the noise that gives things before and behind the object their outline
_EDGE = 64.0  # how steep an outline is
_COARSE = 4  # of every so many pixels a side the level of an outline is found


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


def in_scene(images: Tensor, bank: Tensor, crop: CropOptions, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [0, 1]: images (B, 4, H, W), colours times coverage and coverage, in another light, before other
    backgrounds, half hidden, and as a camera shows them."""
    scenes = compose(relit(images, bank, generator), bank, generator)
    return photograph(cover(scenes, bank, crop.hide_share, crop.hide, generator), generator)


def relit(images: Tensor, bank: Tensor, generator: torch.Generator) -> Tensor:
    """Objects (B, 4, H, W), colours times coverage and coverage, as another paint, light and surroundings show them:
    other colours and contrast, light that is not even, reflections of the bank, and shine.

    A network that has seen one paint in one light takes them for the object.
    """
    count, size = len(images), images.shape[-2:]
    colours, covered = images[:, :3], images[:, 3:]
    drawn = 2 * torch.rand(count, 6, 1, 1, generator=generator) - 1
    mean = covered * (colours.sum((2, 3), True) / covered.sum((2, 3), True).clamp_min(1))
    colours = (mean + (colours - mean) * 1.6 ** drawn[:, :1]) * 1.25 ** drawn[:, 1:4]
    colours = torch.lerp(colours, covered * _pick(bank, count, generator), 0.4 * drawn[:, 4:5].square())
    light, shine = _relief(2 * count, size, generator).mul(4).sub(2).view(2, count, 1, *size)
    return torch.cat([colours * 1.5**light + covered * (shine - 0.5).relu() * drawn[:, 5:].relu(), covered], 1)


def compose(images: Tensor, bank: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) in [0, 1]: images (B, 4, H, W), colours times coverage and coverage, before random backgrounds.

    A background is one photo with parts of four smaller ones, for a photo at the size of a crop is smoother than what
    stands about an object.
    """
    count, (height, width) = len(images), images.shape[-2:]
    four = [_pick(bank[:, :, ::2, ::2], count, generator) for _ in range(4)]
    mosaic = torch.cat([torch.cat(four[:2], -1), torch.cat(four[2:], -1)], -2)[..., :height, :width]
    share = torch.rand(count, generator=generator)
    behind = torch.lerp(_pick(bank, count, generator), mosaic, _outline(share, images.shape[-2:], generator))
    return images[:, :3] + (1 - images[:, 3:]) * behind


def cover(scenes: Tensor, bank: Tensor, share: float, largest: float, generator: torch.Generator) -> Tensor:
    """Scenes (B, 3, H, W), a `share` of which has something before it that hides up to `largest` of the image.

    What covers is a texture of the bank within an outline of smooth noise.
    """
    drawn = torch.rand(len(scenes), 2, generator=generator)
    mask = _outline(largest * drawn[:, 1] * (drawn[:, 0] < share), scenes.shape[-2:], generator)
    return torch.lerp(scenes, _pick(bank, len(scenes), generator), mask)


def _outline(shares: Tensor, size: torch.Size, generator: torch.Generator) -> Tensor:
    """(B, 1, H, W): 1 within an outline of smooth noise that takes about each of `shares` (B,) of the image, else 0."""
    relief = _relief(len(shares), size, generator)
    rank = relief[..., ::_COARSE, ::_COARSE].flatten(1).sort(1).values
    level = rank.gather(1, ((1 - shares) * (rank.shape[1] - 1)).long()[:, None])[..., None, None]
    return ((relief - level) * _EDGE).clamp(0, 1) * (shares > 0)[:, None, None, None]


def _relief(count: int, size: torch.Size, generator: torch.Generator) -> Tensor:
    """Smooth noise (count, 1, H, W), about within 0 and 1."""
    noise = torch.rand(count, 1, _GRID, _GRID, generator=generator)
    return functional.interpolate(noise, tuple(size), mode="bicubic", align_corners=True)


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
