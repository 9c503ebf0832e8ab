"""Meshes of two quadrotors, built on the keypoints of the UAVA data set.

The frame is that of UAVA: x to the drone's left, y up, z forward, metres. Front and back differ in colour and form.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustvision_core.data.poses.pose_set import Mesh, PoseObject

KEYPOINTS = {
    "m2ed": (
        (0.0, 0.0, 0.0),
        (-0.217215, 0.052593, 0.112591),
        (0.219065, 0.052538, 0.111367),
        (0.211193, -0.072009, 0.116905),
        (-0.213789, -0.072006, 0.113757),
        (0.16544, -0.00154, -0.210864),
        (-0.158342, -0.001453, -0.212288),
        (0.165838, -0.058663, -0.212643),
        (-0.160262, -0.058663, -0.212643),
    ),
    "tello": (
        (0.0, 0.0, 0.0),
        (0.0467, 0.0199, 0.0360),
        (-0.0477, 0.0203, 0.0355),
        (0.0476, -0.0311, 0.0349),
        (-0.0470, -0.0311, 0.0360),
        (0.0470, 0.0186, -0.0359),
        (-0.0489, 0.0199, -0.0370),
        (0.0476, -0.0311, -0.0371),
        (-0.0464, -0.0311, -0.0377),
    ),
}
"""Nine points each (tzole1155/EndToEndObjectPose, data_M2ED.yaml and data_Tello.yaml): the centre, then motors (upper)
and feet (lower) in front and at the back, metres."""

FRONT, BACK, NOSE, TAIL, DARK = (
    (0.98, 0.5, 0.08),
    (0.12, 0.5, 0.95),
    (1.0, 0.9, 0.2),
    (0.85, 0.08, 0.1),
    (0.1, 0.1, 0.12),
)
_MOTORS, _FEET = (1, 2, 5, 6), (3, 4, 7, 8)


@dataclass(frozen=True)
class Build:
    """What is not on the keypoints.

    Attributes:
        sections: The hull from tail to nose: (z, half width, bottom, top) of rectangles, metres.
        hull: Colour of its sides and top.
        rotor: Radius of the discs.
        motor: Radius and height of the motors.
        arm: Radius of the arms at the hull and at the motor.
        leg: Radius of the legs.
    """

    sections: tuple[tuple[float, float, float, float], ...]
    hull: tuple[float, float, float]
    rotor: float
    motor: tuple[float, float]
    arm: tuple[float, float]
    leg: float


BUILDS = {
    "m2ed": Build(
        ((-0.135, 0.026, -0.012, 0.022), (-0.11, 0.042, -0.028, 0.034), (0.06, 0.046, -0.034, 0.042),
         (0.115, 0.036, -0.03, 0.03), (0.145, 0.022, -0.024, 0.008)),
        (0.42, 0.43, 0.46), 0.085, (0.017, 0.032), (0.016, 0.011), 0.008,
    ),
    "tello": Build(
        ((-0.046, 0.012, -0.008, 0.008), (-0.038, 0.0185, -0.015, 0.014), (0.026, 0.0185, -0.016, 0.016),
         (0.042, 0.014, -0.012, 0.01), (0.05, 0.009, -0.009, 0.004)),
        (0.9, 0.9, 0.92), 0.03, (0.0055, 0.013), (0.0055, 0.004), 0.0032,
    ),
}  # fmt: skip
"""Proportions after photographs of the DJI Mavic 2 and the Ryze Tello."""


def drone_object(name: str) -> PoseObject:
    """A drone of `KEYPOINTS` with its mesh; its diameter is the largest distance of two vertices."""
    mesh = drone_mesh(name)
    gaps = torch.cdist(mesh.vertices, mesh.vertices, compute_mode="donot_use_mm_for_euclid_dist")
    return PoseObject(name, torch.tensor(KEYPOINTS[name]), float(gaps.max()), mesh)


@functools.cache
def drone_mesh(name: str) -> Mesh:
    """The surface of a drone of `KEYPOINTS`; every keypoint but the centre is one of its vertices."""
    points = torch.tensor(KEYPOINTS[name])
    build = BUILDS[name]
    parts = [*_hull(build), *_nose(build)]
    for k in _MOTORS:
        parts += _limb(points[k], _below(points, k), build, FRONT if points[k, 2] > 0 else BACK)
    return _join(parts)


def prism(start: Tensor, end: Tensor, radii: tuple[float, float], sides: int, colour: tuple[float, ...]) -> Mesh:
    """A closed, tapered prism whose caps are fans around `start` and `end`, (3,) each, which are vertices."""
    axis = torch.nn.functional.normalize(end - start, dim=0)
    helper = torch.eye(3)[int(axis.abs().argmin())]
    u = torch.nn.functional.normalize(torch.linalg.cross(axis, helper), dim=0)
    v = torch.linalg.cross(axis, u)
    angle = (torch.arange(sides) + 0.5) * (2 * math.pi / sides)
    ring = angle.cos()[:, None] * u + angle.sin()[:, None] * v
    vertices = torch.cat([start + radii[0] * ring, end + radii[1] * ring, start[None], end[None]])
    i = torch.arange(sides)
    j = (i + 1) % sides
    low, high = torch.full_like(i, 2 * sides), torch.full_like(i, 2 * sides + 1)
    triples = ((i, j, j + sides), (i, j + sides, i + sides), (j, i, low), (i + sides, j + sides, high))
    faces = torch.cat([torch.stack(triple, 1) for triple in triples])
    return Mesh(vertices, faces, torch.tensor(colour).expand(len(faces), 3))


def _hull(build: Build) -> list[Mesh]:
    """Rectangles joined from tail to nose; the belly dark, the tail red, the front end yellow."""
    z, wide, bottom, top = torch.tensor(build.sections).T
    corners = torch.stack(
        [torch.stack([side * wide, level, z], -1) for side, level in ((1, bottom), (-1, bottom), (-1, top), (1, top))],
        1,
    )  # (S, 4, 3): belly left, belly right, top right, top left
    parts = []
    for s in range(len(z) - 1):
        last = s == len(z) - 2
        for e in range(4):
            quad = torch.stack([corners[s, e], corners[s, (e + 1) % 4], corners[s + 1, (e + 1) % 4], corners[s + 1, e]])
            parts.append(_quad(quad, DARK if e == 0 else NOSE if last else build.hull))
    return [*parts, _quad(corners[0], TAIL), _quad(corners[-1], NOSE)]


def _nose(build: Build) -> list[Mesh]:
    """A black camera below the front end, and a red light on the tail."""
    front, back = build.sections[-1], build.sections[0]
    radius = 0.55 * front[1]
    centre = (front[2] + front[3]) / 2
    lens = prism(
        torch.tensor([0, centre, front[0] - radius]),
        torch.tensor([0, centre, front[0] + radius]),
        (radius, radius),
        8,
        DARK,
    )
    light = prism(
        torch.tensor([0, back[3], back[0] + radius]), torch.tensor([0, back[3] + radius, back[0] + radius]),
        (0.9 * radius, 0.7 * radius), 6, TAIL,
    )  # fmt: skip
    return [lens, light]


def _limb(motor: Tensor, foot: Tensor, build: Build, colour: tuple[float, float, float]) -> list[Mesh]:
    """Arm, motor, disc and leg; the top of the motor and the sole of the foot are the keypoints."""
    up = torch.tensor([0.0, 1.0, 0.0])
    radius, height = build.motor
    base = motor - height * up
    side, end = math.copysign(1, float(motor[0])), math.copysign(1, float(motor[2]))
    section = build.sections[2 if end > 0 else 1]
    root = torch.tensor([side * 0.8 * section[1], (section[2] + section[3]) / 2, 0.75 * section[0]])
    dim = tuple(0.55 * c for c in colour)
    disc = motor - 0.25 * height * up
    return [
        prism(root, base + 0.3 * height * up, build.arm, 4, build.hull),
        prism(base, motor, (radius, 0.8 * radius), 8, DARK),
        prism(disc - 0.06 * height * up, disc, (build.rotor, build.rotor), 12, colour),
        prism(base + 0.3 * height * up, foot, (0.7 * build.leg, build.leg), 4, dim),
    ]


def _below(points: Tensor, motor: int) -> Tensor:
    """The foot under a motor; UAVA lists left and right in another order for the two."""
    feet = points[list(_FEET)]
    return feet[(feet - points[motor])[:, [0, 2]].norm(dim=1).argmin()]


def _quad(corners: Tensor, colour: tuple[float, ...]) -> Mesh:
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor(colour).expand(2, 3))


def _join(parts: list[Mesh]) -> Mesh:
    starts = torch.tensor([0, *(len(part.vertices) for part in parts)]).cumsum(0).tolist()
    return Mesh(
        torch.cat([part.vertices for part in parts]),
        torch.cat([part.faces + start for part, start in zip(parts, starts, strict=False)]),
        torch.cat([part.colours for part in parts]),
    )
