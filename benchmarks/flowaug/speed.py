"""Sampling, warping and predicting beside plain per-sample implementations and kornia."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from flowaug import AffineSpace, AugmentedClassifier, ConditionalFlow, FlowAugmenter, FlowSpec
from flowaug.flows.layer import ContextLayer
from flowaug.networks import build
from flowaug.warp import homogeneous, warp
from kornia.geometry.transform import homography_warp
from torch import Tensor

from benchmarks.common import interleaved, save

QUESTION = "What do sampling, warping and prediction cost beside plain per-sample code and kornia?"
BATCH, SIDE, CONTEXT = 128, 32, 32
VIEWS = [4, 20]
AIMS = {"sample + log-density": 2.0, "warp": 1.4}


def plain_sample(flow: ConditionalFlow, context: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Every sample as an image of its own: the context repeated, and read anew by every layer."""
    repeated = context.repeat_interleave(n, 0)
    z, log_prob = flow.base.draw(repeated, 1)
    z, log_prob = z[:, 0], log_prob[:, 0]
    for layer in flow.layers:
        assert isinstance(layer, ContextLayer)
        z, log_det = layer(z, repeated)
        log_prob = log_prob - log_det
    assert flow.box is not None
    z, log_det = flow.box(z)
    return z, log_prob - log_det


def plain_warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Every view as an image of its own: the image repeated."""
    batch, n = matrices.shape[:2]
    grid = F.affine_grid(matrices.flatten(0, 1), [batch * n, *images.shape[1:]], align_corners=True)
    read = F.grid_sample(images.repeat_interleave(n, 0), grid, align_corners=True)
    return read.unflatten(0, (batch, n))


def kornia_warp(images: Tensor, matrices: Tensor) -> Tensor:
    """The same by kornia."""
    batch, n = matrices.shape[:2]
    flat = homogeneous(matrices.flatten(0, 1))
    read = homography_warp(images.repeat_interleave(n, 0), flat, (SIDE, SIDE), align_corners=True)
    return read.unflatten(0, (batch, n))


def backward_of(function: Callable[[], tuple[Tensor, ...]]) -> Callable[[], None]:
    """Forward and backward."""

    def call() -> None:
        torch.stack([value.square().sum() for value in function()]).sum().backward()

    return call


def measure(n: int, repeats: int) -> list[dict[str, Any]]:
    """One row for sampling and one for warping, with n views per image."""
    torch.manual_seed(0)
    flow = ConditionalFlow(6, CONTEXT, FlowSpec())
    published = ConditionalFlow(6, CONTEXT, FlowSpec(gradient="straight_through"))
    context = torch.randn(BATCH, CONTEXT, requires_grad=True)
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    matrices = AffineSpace().matrix(torch.rand(BATCH, n, 6) - 0.5, (SIDE, SIDE)).requires_grad_()
    sampling = {
        "ours": backward_of(lambda: flow.sample(context, n)),
        "plain": backward_of(lambda: plain_sample(flow, context, n)),
        "ours, straight-through": backward_of(lambda: published.sample(context, n)),
        "plain, straight-through": backward_of(lambda: plain_sample(published, context, n)),
    }
    warping = {
        "ours": backward_of(lambda: (warp(images, matrices),)),
        "plain": backward_of(lambda: (plain_warp(images, matrices),)),
        "kornia": backward_of(lambda: (kornia_warp(images, matrices),)),
    }
    rows = []
    for name, functions in (("sample + log-density", sampling), ("warp", warping)):
        best = {key: 1e3 * min(times) for key, times in interleaved(functions, repeats, warmup=2).items()}
        rows.append(
            {
                "what": name,
                "views": n,
                "ours (ms)": best["ours"],
                "plain (ms)": best["plain"],
                "plain / ours": best["plain"] / best["ours"],
                "aim": AIMS[name],
                "rival": "kornia" if "kornia" in best else "published gradient, plain / ours",
                "rival / ours": best["kornia"] / best["ours"]
                if "kornia" in best
                else best["plain, straight-through"] / best["ours, straight-through"],
                "same values": bool(torch.equal(warp(images, matrices), plain_warp(images, matrices)))
                if name == "warp"
                else "same distribution",
            }
        )
    return rows


def peak_memory(n: int) -> float:
    """Most memory in MiB of a process that predicts 64 images with n views."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AugmentedClassifier(build("simple_conv", 3, SIDE, 10), FlowAugmenter(AffineSpace())).eval()
    images = torch.rand(64, 3, SIDE, SIDE)
    model.predict(images, n=n)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    rows = [row for n in VIEWS for row in measure(n, 20 if n < 10 else 10)]
    views = [20, 100, 400]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = dict(zip(map(str, views), pool.map(peak_memory, views, chunksize=1), strict=True))
    print("peak memory of prediction (MiB) by views:", memory, flush=True)
    note = (
        f"forward and backward, batch {BATCH}, 3x{SIDE}x{SIDE}, 6 dimensions, 12 layers, least of interleaved calls; "
        "prediction_memory_mib: peak of a process that predicts 64 images, by number of views"
    )
    save(__file__, QUESTION, rows, note=note, prediction_memory_mib=memory)


if __name__ == "__main__":
    main()
