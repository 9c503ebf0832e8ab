"""The two drones of UAVA, seen as its images show them: keypoints, camera, and random poses with all points in view."""

from __future__ import annotations

import torch
from diffpnp_pose import project, so3_exp
from torch import Tensor

KEYPOINTS = {
    "M2ED": [
        [0.0, 0.0, 0.0], [-0.217215, 0.052593, 0.112591], [0.219065, 0.052538, 0.111367],
        [0.211193, -0.072009, 0.116905], [-0.213789, -0.072006, 0.113757], [0.16544, -0.00154, -0.210864],
        [-0.158342, -0.001453, -0.212288], [0.165838, -0.058663, -0.212643], [-0.160262, -0.058663, -0.212643],
    ],
    "Tello": [
        [0.0, 0.0, 0.0], [0.0467, 0.0199, 0.0360], [-0.0477, 0.0203, 0.0355], [0.0476, -0.0311, 0.0349],
        [-0.0470, -0.0311, 0.0360], [0.0470, 0.0186, -0.0359], [-0.0489, 0.0199, -0.0370],
        [0.0476, -0.0311, -0.0371], [-0.0464, -0.0311, -0.0377],
    ],
}  # fmt: skip
RANGES = {"M2ED": (1.2, 3.0), "Tello": (1.0, 2.5)}  # metres; UAVA's own are not published
CAMERA = [[252.6, 0.0, 160.0], [0.0, 252.6, 120.0], [0.0, 0.0, 1.0]]


def drone(name: str, batch: int, noise: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Noisy image points `(B, 9, 2)`, keypoints `(9, 3)`, K, and true rotations and translations."""
    generator = torch.Generator().manual_seed(seed)
    z, K = torch.tensor(KEYPOINTS[name], dtype=torch.float64), torch.tensor(CAMERA, dtype=torch.float64)
    near, far = RANGES[name]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    found: list[tuple[Tensor, Tensor, Tensor]] = []
    while sum(len(part[0]) for part in found) < batch:
        # heading all around, tilt of about 0.6 rad, as a flying drone has
        heading = torch.stack([torch.zeros(batch), (uniform(batch) * 2 - 1) * torch.pi, torch.zeros(batch)], -1)
        tilt = (uniform(batch, 3) * 2 - 1) * torch.tensor([0.6, 0.0, 0.6])
        R = so3_exp(tilt) @ so3_exp(heading.double())
        depth = near + (far - near) * uniform(batch)
        t = torch.stack([(uniform(batch) - 0.5) * depth, (uniform(batch) - 0.5) * 0.75 * depth, depth], -1)
        x = project(z, R, t, K)
        seen = ((x > 4) & (x < torch.tensor([316.0, 236.0]))).flatten(1).all(-1)
        found.append((x[seen], R[seen], t[seen]))
    x, R, t = (torch.cat(part)[:batch] for part in zip(*found, strict=True))
    x = x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x, z, K, R, t


def cloud(n: int, batch: int, noise: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One random cloud of n points at close range, in any orientation; returns the same as `drone`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    z, K = 0.5 * normal(n, 3), torch.tensor(CAMERA, dtype=torch.float64)
    R, t = so3_exp(normal(batch, 3)), torch.tensor([0.0, 0.0, 4.0]) + 0.2 * normal(batch, 3)
    return project(z, R, t, K) + noise * normal(batch, n, 2), z, K, R, t
