"""Forward and backward beside the published layer, which loops over the items of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import torch
from diffpnp_pose import solve_pnp
from torch import Tensor

from benchmarks.common import save
from benchmarks.diffpnp_pose._balanced import milliseconds
from benchmarks.diffpnp_pose._geometry import cloud
from benchmarks.diffpnp_pose._rivals import PerItem

QUESTION = "How much faster are forward and backward than the published per-item layer? (milliseconds, medians)"
NOTES = (
    "One thread, float64, one cloud of n points at close range, 0.5 px noise. The published layer is rewritten: OpenCV "
    "consensus and ITERATIVE per item, then six scalar backward passes per item; 'lean' is the same without the "
    "consensus and without n x n projections; 'faster' its published approximation, as published. It loops "
    "over items, and is timed on at most 24 of them and scaled to B; solve_pnp is timed on all, in turns with it."
)


def forward_backward(f: Callable[[Tensor], Tensor], x: Tensor, up: Tensor) -> Callable[[], Any]:
    """A task that solves and differentiates."""
    x = x.clone().requires_grad_()
    return lambda: torch.autograd.grad(f(x), x, up)


def row(n: int, batch: int) -> dict[str, Any]:
    """Ours and the layer's three forms on one batch."""
    x, z, K, _, _ = cloud(n, batch, 0.5, 0)
    few, up = min(batch, 24), torch.randn(batch, 6, dtype=torch.float64)
    tasks = {"ours": forward_backward(lambda v: solve_pnp(v, z, K).pose, x, up)}
    for name, faster, lean in (("published", False, False), ("lean", False, True), ("faster", True, False)):
        layer = lambda v, faster=faster, lean=lean: PerItem.apply(v, z, K, faster, lean)  # noqa: E731
        tasks[name] = forward_backward(layer, x[:few], up[:few])
    found = milliseconds(tasks)
    ours = found.pop("ours")
    scaled = {name: value * batch / few for name, value in found.items()}
    ratios = {f"{name} / ours": value / ours for name, value in scaled.items()}
    return {"n": n, "B": batch, "solve_pnp": ours, **scaled, **ratios}


def main() -> None:
    """Time every shape."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    save(__file__, QUESTION, [row(n, b) for n in (9, 20) for b in (1, 24, 256, 1024)], notes=NOTES)
