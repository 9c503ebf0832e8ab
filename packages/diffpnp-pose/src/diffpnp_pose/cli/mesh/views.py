"""Random poses of an object before a camera, and drawings of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from robustvision_core.data import Mesh, PoseObject, render_mesh
from robustvision_core.data.poses.pinhole import project
from robustvision_core.data.sampling.hashed import uniform
from torch import Tensor

from diffpnp_pose.cli.mesh.objects import outermost
from diffpnp_pose.cli.recipes import MeshOptions

_POSE, _LIGHT = range(2)  # what a random number is for
_ASIDE = 0.4  # largest tangent of the angle between the camera's axis and the object


class Views(NamedTuple):
    """Poses (N, 3, 3), (N, 3) in metres, and of a crop around each the intrinsics (N, 3, 3) and the object's box
    (N, 4)."""

    R: Tensor
    t: Tensor
    K: Tensor
    boxes: Tensor


def draw_views(
    options: MeshOptions,
    thing: PoseObject,
    count: int,
    size: tuple[int, int],
    margin: float,
    keys: tuple[int, int],
) -> Views:
    """Random poses and crops of an object.

    Args:
        options: Ranges of the poses.
        thing: The object, with a mesh.
        count: N.
        size: Width and height of the crops.
        margin: How much larger than the object a crop is.
        keys: Seed and stream of the random numbers; view `i` depends on them, the options and `i` alone.
    """
    assert thing.mesh is not None
    (seed, stream), diameter = keys, thing.diameter
    drawn = uniform(seed, (_POSE, stream, torch.arange(count)), 6)
    R = _facing(options, drawn[:, :3])
    near, far = options.distance if any(options.distance) else (2.5 * diameter, 8 * diameter)
    ray = torch.cat([_ASIDE * (2 * drawn[:, 4:6] - 1), torch.ones(count, 1)], 1)
    ray = ray / ray.norm(dim=1, keepdim=True)
    t = ray * (near * (far / near) ** drawn[:, 3])[:, None]
    R = _towards(ray) @ R
    return Views(R, t, *_crops(outermost(thing.mesh.vertices), R, t, size, margin))


def _facing(options: MeshOptions, drawn: Tensor) -> Tensor:
    """Rotations (N, 3, 3) of an object straight ahead: from any side, from a height within the range, and rolled."""
    low, high = (math.sin(math.radians(angle)) for angle in options.elevation)
    turn = 2 * math.pi * drawn[:, 0]
    height = low + (high - low) * drawn[:, 1]  # uniform on the sphere
    level = (1 - height.square()).clamp_min(0).sqrt()
    ahead = -torch.stack([level * turn.cos(), level * turn.sin(), height], -1)
    right = torch.stack([-turn.sin(), turn.cos(), torch.zeros_like(turn)], -1)
    upright = torch.stack([right, torch.linalg.cross(ahead, right), ahead], 1)
    roll = math.radians(options.roll) * (2 * drawn[:, 2] - 1)
    cos, sin, zero = roll.cos(), roll.sin(), torch.zeros_like(roll)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], -1).view(-1, 3, 3) @ upright


def _towards(ray: Tensor) -> Tensor:
    """The shortest rotations (N, 3, 3) that take the camera's axis to unit vectors (N, 3) before it."""
    x, y, z = ray.unbind(-1)
    share = 1 / (1 + z)
    rows = [1 - x * x * share, -x * y * share, x, -x * y * share, 1 - y * y * share, y, -x, -y, z]
    return torch.stack(rows, -1).view(-1, 3, 3)


def _crops(vertices: Tensor, R: Tensor, t: Tensor, size: tuple[int, int], margin: float) -> tuple[Tensor, Tensor]:
    """Intrinsics (N, 3, 3) under which the object fills a crop but for the margin, and its box (N, 4) there."""
    eye, wanted = torch.eye(3), torch.tensor(size, dtype=torch.float32)
    bounds = []
    for part in torch.arange(len(R)).split(max(1, (1 << 22) // len(vertices))):
        seen = project(vertices, R[part], t[part], eye)
        bounds.append(torch.stack([seen.amin(1), seen.amax(1)], 1))
    low, high = torch.cat(bounds).unbind(1)
    focal = (wanted / (high - low)).amin(1) / margin
    K = torch.zeros(len(R), 3, 3)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, :2, 2] = wanted / 2 - focal[:, None] * (low + high) / 2
    K[:, 2, 2] = 1
    half = focal[:, None] * (high - low) / 2
    return K, torch.cat([wanted / 2 - half, wanted / 2 + half], 1)


def draw_images(
    mesh: Mesh, views: Views, size: tuple[int, int], keys: tuple[int, int], tick: Callable[[], object]
) -> Tensor:
    """(N, 4, H, W) uint8: the mesh in random light, colours times coverage and coverage.

    Args:
        mesh: In metres.
        views: Where it is seen.
        size: Width and height.
        keys: As of `draw_views`.
        tick: Called after every image.
    """
    seed, stream = keys
    drawn = uniform(seed, (_LIGHT, stream, torch.arange(len(views.R))), 5)
    images = torch.empty(len(views.R), 4, size[1], size[0], dtype=torch.uint8)
    for i, (R, t, K) in enumerate(zip(views.R, views.t, views.K, strict=True)):
        light = torch.stack([2 * drawn[i, 0] - 1, 0.3 - 1.3 * drawn[i, 1], -0.2 - drawn[i, 2]])
        ambient = 0.45 + 0.55 * float(drawn[i, 3])
        seen = render_mesh(mesh.vertices, mesh.faces, mesh.colours, R, t, K, size, light=light, ambient=ambient)
        levels = torch.cat([seen.colour.movedim(-1, 0), seen.mask[None]])
        images[i] = (levels * 255).round_().clamp_(0, 255).to(torch.uint8)
        tick()
    return images
