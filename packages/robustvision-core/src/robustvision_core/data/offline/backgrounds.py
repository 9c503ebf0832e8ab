"""Coloured backgrounds without photos: uneven at several scales, with ripples."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from robustvision_core.data.sampling.hashed import uniform

GRIDS = (2, 4, 7, 14)  # cells a side of the noise, from coarse to fine
FADE = 0.75  # strength of each grid against the one before, as in photos, where fine detail is weaker
RIPPLES = 2  # waves across an image
CHUNK = 512  # images drawn at once

_TONE, _WAVES, _GRID = range(3)  # what a random number is for


def draw_backgrounds(index: Tensor, size: int, seed: int, stream: int = 0) -> Tensor:
    """A texture of random colours for each number, which depends on (seed, stream, number) alone.

    Args:
        index: (N,) int64, the numbers of the backgrounds.
        size: Height and width.
        seed: Of everything.
        stream: Keeps apart the backgrounds of several sets.

    Returns:
        (N, 3, size, size) uint8.
    """
    drawn = torch.empty(len(index), 3, size, size, dtype=torch.uint8)
    for part in torch.arange(len(index)).split(CHUNK):
        drawn[part] = _draw(index[part], size, seed, stream)
    return drawn


def _draw(index: Tensor, size: int, seed: int, stream: int) -> Tensor:
    tone = uniform(seed, (_TONE, stream, index), 4)
    # the tone of all channels together and then of each, as colours in photos are muted
    scene = (0.15 + 0.7 * (0.6 * tone[:, :1] + 0.4 * tone[:, 1:]))[:, :, None, None].repeat(1, 1, size, size)
    for scale, cells in enumerate(GRIDS):
        noise = uniform(seed, (_GRID, stream, index, scale), 4 * cells**2).view(-1, 4, cells, cells) - 0.5
        uneven = 0.7 * noise[:, :1] + 0.3 * noise[:, 1:]
        scene += FADE**scale * functional.interpolate(uneven, (size, size), mode="bilinear", align_corners=False)
    scene += _ripples(index, size, seed, stream)
    return (scene.clamp_(0, 1) * 255).round_().to(torch.uint8)


def _ripples(index: Tensor, size: int, seed: int, stream: int) -> Tensor:
    """(N, 3, size, size): waves of random direction, length (a sixth of the image to all of it), phase and colour."""
    numbers = uniform(seed, (_WAVES, stream, index), 6 * RIPPLES).unflatten(1, (RIPPLES, 6))
    angle, cycles, phase = 2 * math.pi * numbers[..., 0], 1 + 5 * numbers[..., 1], 2 * math.pi * numbers[..., 2]
    axis = (torch.arange(size) + 0.5) / size
    across = 2 * math.pi * (cycles * angle.cos())[..., None] * axis + phase[..., None]  # (N, RIPPLES, size)
    down = 2 * math.pi * (cycles * angle.sin())[..., None] * axis
    colour = 0.2 * (numbers[..., 3:].mT - 0.5)  # (N, 3, RIPPLES)
    # sin(across + down) as a sum of products: a small matrix product in place of a sine a pixel
    rows = torch.cat([colour[..., None] * down.cos()[:, None], colour[..., None] * down.sin()[:, None]], 2)
    columns = torch.cat([across.sin(), across.cos()], 1)
    return torch.einsum("ncky,nkx->ncyx", rows, columns)
