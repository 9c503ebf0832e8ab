"""Problems that several test files solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from diffpnp_pose import project, so3_exp
from torch import Tensor


@dataclass
class Case:
    """A batch of noisy problems with known poses."""

    x: Tensor
    z: Tensor
    K: Tensor
    c: Tensor
    R: Tensor
    t: Tensor


def _case(
    batch: int, n: int, noise: float = 0.0, angle: float | None = None, seed: int = 0, planar: bool = False
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    w = normal(batch, 3)
    if angle is not None:
        w = w / w.norm(dim=-1, keepdim=True) * angle
    t = torch.tensor([0.1, 0.2, 4.0]) + 0.3 * normal(batch, 3)
    z = 0.5 * normal(batch, n, 3) + torch.tensor([0.3, -0.2, 0.1])
    if planar:
        z[..., 2] = 0.2
    K = torch.tensor([[300.0, 2.0, 160.0], [0.0, -310.0, 120.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    K = K.repeat(batch, 1, 1)
    R = so3_exp(w)
    x = project(z, R, t, K) + noise * normal(batch, n, 2)
    c = torch.rand((batch, n), generator=generator, dtype=torch.float64) + 0.5
    return Case(x, z, K, c, R, t)


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    """Build a batch of problems: `make_case(batch, n, noise, angle, seed, planar)`."""
    return _case
