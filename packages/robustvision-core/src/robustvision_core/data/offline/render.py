"""Triangle meshes to images with a depth buffer, in torch alone.

Scan lines of all triangles of all images at once: each triangle gives the rows of pixel centres it crosses, each row a
run of pixels, and the nearest triangle of every pixel wins. The work is that of the pixels covered, no bounding box's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 1e-3  # metres; nothing nearer to the camera's plane is drawn
LIGHT = (-0.4, -0.75, -0.55)  # from above, the left and behind the camera
AMBIENT = 0.5
CHUNK = 1 << 22  # samples or triangles in memory at once


class Render(NamedTuple):
    """A rendered mesh.

    Attributes:
        colour: (..., H, W, 3) float32 in [0, 1] before black: what is seen times `mask`.
        mask: (..., H, W) float32, the share of the pixel that is covered.
        depth: (..., H, W) float32, metres along the camera's axis to the nearest surface; infinite where none is.
    """

    colour: Tensor
    mask: Tensor
    depth: Tensor


def render_mesh(
    vertices: Tensor,
    faces: Tensor,
    colours: Tensor,
    R: Tensor,
    t: Tensor,
    K: Tensor,
    size: tuple[int, int],
    *,
    light: Tensor | None = None,
    ambient: float = AMBIENT,
    supersample: int = 2,
) -> Render:
    """A mesh under one or many poses, with Lambert's shading, both sides of a face alike.

    Conventions are those of `robustvision_core.data.poses.pose_set`. A face of which a corner is nearer than a
    millimetre to the camera's plane, or behind it, is left out.

    Args:
        vertices: (V, 3), metres.
        faces: (F, 3) int64.
        colours: (F, 3) RGB of each face in [0, 1].
        R: (..., 3, 3) rotations, object to camera.
        t: (..., 3), metres.
        K: (3, 3) or (..., 3, 3) intrinsics, pixels of the result.
        size: Width and height of the result.
        light: (3,) or (..., 3), direction towards the light in the camera's frame; None comes from above.
        ambient: The share of light that is the same from everywhere.
        supersample: Samples along each side of a pixel.

    Raises:
        ValueError: `R` and `t` have different leading dimensions, or `size` or `supersample` is not positive.
    """
    lead = R.shape[:-2]
    if t.shape[:-1] != lead:
        raise ValueError(f"R is {tuple(R.shape)} but t {tuple(t.shape)}: expected (..., 3, 3) and (..., 3)")
    if min(*size, supersample) < 1:
        raise ValueError(f"size is {size} and supersample {supersample}: expected positive numbers")
    to = torch.tensor(LIGHT, device=R.device) if light is None else light
    R, t = R.reshape(-1, 3, 3).float(), t.reshape(-1, 3).float()
    K = K.expand(*lead, 3, 3).reshape(-1, 3, 3).float()
    to = to.expand(*lead, 3).reshape(-1, 3).float()
    step = max(1, CHUNK // max(size[0] * size[1] * supersample**2, len(faces)))
    parts = []
    for rows in torch.arange(len(R), device=R.device).split(step):
        corners = (vertices.to(R) @ R[rows].mT + t[rows][:, None])[:, faces]
        shown = shade(corners, colours.to(R), to[rows], ambient)
        parts.append(_resolve(rasterise(corners, K[rows], size, supersample), shown, size, supersample))
    width, height = size
    colour, mask, depth = (torch.cat(part) for part in zip(*parts, strict=True))
    return Render(
        colour.view(*lead, height, width, 3), mask.view(*lead, height, width), depth.view(*lead, height, width)
    )


def shade(corners: Tensor, colours: Tensor, light: Tensor, ambient: float) -> Tensor:
    """Lambert's law, `colour (ambient + (1 - ambient) max(0, n l))` with the normal n turned to the camera.

    Args:
        corners: (B, F, 3, 3) corners of each face in the camera's frame.
        colours: (F, 3).
        light: (B, 3), towards the light, of any length.
        ambient: In [0, 1].

    Returns:
        (B, F, 3).
    """
    a, b, c = corners.unbind(2)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-20)
    facing = torch.where((normal * a).sum(-1) > 0, -1.0, 1.0)
    lit = (normal @ torch.nn.functional.normalize(light, dim=-1)[..., None])[..., 0] * facing
    return colours * (ambient + (1 - ambient) * lit.clamp_min(0))[..., None]


def rasterise(corners: Tensor, K: Tensor, size: tuple[int, int], supersample: int = 1) -> Tensor:
    """The nearest face at every sample, as one integer each.

    Args:
        corners: (B, F, 3, 3) corners of each face in the camera's frame.
        K: (B, 3, 3) intrinsics, pixels.
        size: Width and height in pixels.
        supersample: Samples along each side of a pixel, at `(i + 1/2) / supersample`.

    Returns:
        (B, H * supersample, W * supersample) int64: the bits of 1/depth as float32 above 32 bits that number the face;
        -1 where there is none. `unpack` reads them.
    """
    width, height = size[0] * supersample, size[1] * supersample
    batch, count = corners.shape[:2]
    ahead = (corners[..., 2] > NEAR).all(-1)
    inverse = 1 / corners[..., 2].clamp_min(NEAR)
    seen = (corners @ K[:, None].mT)[..., :2] * inverse[..., None] * supersample
    seen, inverse = seen.flatten(0, 1), inverse.flatten(0, 1)
    number, row, left, right = _runs(seen, ahead.flatten(), width, height)
    run, column = _expand(left, right)
    number, row = number[run], row[run]
    slope = _planes(seen, inverse)[number]
    value = slope[:, 0] + slope[:, 1] * (column + 0.5) + slope[:, 2] * (row + 0.5)
    low, high = inverse.aminmax(dim=1)
    value = value.clamp(low[number], high[number])  # nearly edge-on the plane is steep and the rounding with it
    bits = value.contiguous().view(torch.int32).long()  # of positive floats the bits are in order
    place = (number // count * height + row) * width + column
    nearest = torch.full((batch * height * width,), -1, dtype=torch.int64, device=corners.device)
    nearest.scatter_reduce_(0, place, (bits << 32) | (number % count), "amax")
    return nearest.view(batch, height, width)


def unpack(nearest: Tensor) -> tuple[Tensor, Tensor]:
    """Of what `rasterise` gives: the number of the face, -1 where none is, and the depth, infinite there."""
    empty = nearest < 0
    face = torch.where(empty, -1, nearest & 0xFFFFFFFF)
    inverse = (nearest >> 32).clamp_min(0).int().view(torch.float32)
    return face, torch.where(empty, torch.inf, 1 / inverse)


def _runs(seen: Tensor, ahead: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of sample centres inside each triangle.

    A triangle holds the centres from its left edge on, up to but not on its right edge, and so for rows: triangles with
    a common edge share no centre and leave none out.

    Args:
        seen: (T, 3, 2) corners, in samples.
        ahead: (T,) bool, whether to draw it.
        width: Of the image, in samples.
        height: As `width`.

    Returns:
        Triangle, row, first column and the column after the last, (S,) int64 each.
    """
    y = seen[..., 1]
    first = (y.amin(1) - 0.5).ceil().clamp(0, height).long()
    last = (y.amax(1) - 0.5).ceil().clamp(0, height).long()
    triangle, row = _expand(first, torch.where(ahead, last, first))
    start, end = seen, seen.roll(-1, 1)
    swap = (start[..., 1] > end[..., 1])[..., None]  # from the upper end, so that neighbours agree to the last bit
    start, end = torch.where(swap, end, start), torch.where(swap, start, end)
    rise = end[..., 1] - start[..., 1]
    slope = (end[..., 0] - start[..., 0]) / torch.where(rise == 0, 1.0, rise)
    table = torch.stack([start[..., 0], start[..., 1], end[..., 1], slope], -1)[triangle]  # (S, 3, 4)
    x0, y0, y1, gain = table.unbind(-1)
    centre = row[:, None] + 0.5
    x = x0 + (centre - y0) * gain
    crossed = (y0 <= centre) & (centre < y1)
    left = torch.where(crossed, x, torch.inf).amin(1)
    right = torch.where(crossed, x, -torch.inf).amax(1)
    bounds = [(edge - 0.5).ceil().clamp(0, width).long() for edge in (left, right)]
    return triangle, row, bounds[0], bounds[1]


def _expand(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """All integers of many ranges: the number of the range and the integer, (S,) int64 each."""
    count = (stop - start).clamp_min(0)
    owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    before = count.cumsum(0) - count
    return owner, torch.arange(len(owner), device=count.device) - (before - start)[owner]


def _planes(seen: Tensor, inverse: Tensor) -> Tensor:
    """(T, 3): 1/depth as `c0 + c1 x + c2 y`, which it is exactly on a plane, from corners (T, 3, 2) and (T, 3)."""
    (x, y), (dx1, dy1), (dx2, dy2) = (part.unbind(-1) for part in (seen[:, 0], *_sides(seen)))
    d1, d2 = inverse[:, 1] - inverse[:, 0], inverse[:, 2] - inverse[:, 0]
    area = dx1 * dy2 - dx2 * dy1
    area = torch.where(area == 0, 1.0, area)  # without area there are no samples
    right, down = (d1 * dy2 - d2 * dy1) / area, (d2 * dx1 - d1 * dx2) / area
    return torch.stack([inverse[:, 0] - right * x - down * y, right, down], -1)


def _sides(seen: Tensor) -> tuple[Tensor, Tensor]:
    return seen[:, 1] - seen[:, 0], seen[:, 2] - seen[:, 0]


def _resolve(nearest: Tensor, shown: Tensor, size: tuple[int, int], supersample: int) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (B, H, W, 3), coverage and depth of pixels from their samples; shown (B, F, 3) are the faces' colours."""
    (width, height), batch = size, len(nearest)
    flat = nearest.view(-1)
    covered = (flat >= 0).nonzero()[:, 0]
    image, rest = covered // (width * height * supersample**2), covered % (width * height * supersample**2)
    row, column = rest // (width * supersample), rest % (width * supersample)
    pixel = (image * height + row // supersample) * width + column // supersample
    won = flat[covered]
    colour = torch.zeros(batch * height * width, 3, device=shown.device)
    colour.index_add_(0, pixel, shown[image, won & 0xFFFFFFFF])
    mask = torch.zeros(batch * height * width, device=shown.device)
    mask.index_add_(0, pixel, torch.ones_like(pixel, dtype=mask.dtype))
    inverse = torch.zeros_like(mask)
    inverse.scatter_reduce_(0, pixel, (won >> 32).int().view(torch.float32), "amax")
    share = 1 / supersample**2
    shape = (batch, height, width)
    return colour.mul_(share).view(*shape, 3), mask.mul_(share).view(shape), (1 / inverse).view(shape)


def overlay(image: Tensor, render: Render, opacity: float = 0.6) -> Tensor:
    """A rendered mesh over an image.

    Args:
        image: (..., 3, H, W) uint8.
        render: Of the same leading dimensions and size.
        opacity: 1 hides what is behind the mesh.

    Returns:
        (..., 3, H, W) uint8.
    """
    mesh = render.colour.movedim(-1, -3) * opacity
    behind = image.float() / 255 * (1 - opacity * render.mask[..., None, :, :])
    return ((mesh + behind) * 255).round_().clamp_(0, 255).to(torch.uint8)
