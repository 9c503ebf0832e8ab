"""Sampling, warping and predicting beside plain per-sample implementations and kornia."""

from __future__ import annotations

import multiprocessing
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import torch
from flowaug import AffineSpace, AugmentedClassifier, ConditionalFlow, FlowAugmenter, FlowSpec
from flowaug.networks import build
from flowaug.warp import warp
from torch import Tensor

from benchmarks.common import interleaved, save
from benchmarks.flowaug._plain import PlainFlow, kornia_warp, plain_warp

QUESTION = "What do sampling, warping and prediction cost beside plain per-sample code and kornia?"
BATCH, SIDE, CONTEXT = 128, 32, 32
VIEWS = [4, 20]
MEMORY_VIEWS = [20, 100, 400]


def backward_of(function: Callable[[], tuple[Tensor, ...]]) -> Callable[[], None]:
    """Forward and backward."""

    def call() -> None:
        torch.stack([value.square().sum() for value in function()]).sum().backward()

    return call


def sampling(n: int, repeats: int) -> dict[str, Any]:
    """The row of sampling with log-density; the published, straight-through gradient on both sides."""
    flow = ConditionalFlow(6, CONTEXT, FlowSpec(gradient="straight_through"))
    unbiased = ConditionalFlow(6, CONTEXT, FlowSpec())
    plain = PlainFlow(ConditionalFlow(6, CONTEXT, FlowSpec(gradient="straight_through")).base, 6, CONTEXT)
    context = torch.randn(BATCH, CONTEXT, requires_grad=True)
    functions = {
        "ours": backward_of(lambda: flow.sample(context, n)),
        "plain": backward_of(lambda: plain.sample(context, n)),
        "other": backward_of(lambda: unbiased.sample(context, n)),
    }
    return row("sample + log-density", n, functions, repeats, 2.0, "ours with the unbiased gradient (default)")


def warping(n: int, repeats: int) -> dict[str, Any]:
    """The row of warping."""
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    matrices = AffineSpace().matrix(torch.rand(BATCH, n, 6) - 0.5, (SIDE, SIDE)).requires_grad_()
    same = torch.equal(warp(images, matrices), plain_warp(images, matrices))
    functions = {
        "ours": backward_of(lambda: (warp(images, matrices),)),
        "plain": backward_of(lambda: (plain_warp(images, matrices),)),
        "other": backward_of(lambda: (kornia_warp(images, matrices),)),
    }
    name = "warp, bit-identical" if same else "warp, DIFFERENT VALUES"
    return row(name, n, functions, repeats, 1.4, "kornia homography_warp")


def row(
    what: str, n: int, functions: dict[str, Callable[[], None]], repeats: int, aim: float, other: str
) -> dict[str, Any]:
    """The median times of interleaved calls, as a row."""
    medians = {key: 1e3 * statistics.median(times) for key, times in interleaved(functions, repeats, warmup=2).items()}
    return {
        "what": what,
        "views": n,
        "ours (ms)": medians["ours"],
        "plain (ms)": medians["plain"],
        "plain / ours": medians["plain"] / medians["ours"],
        "aim": aim,
        "beside": other,
        "its time (ms)": medians["other"],
    }


def peak_memory(n: int) -> float:
    """Most memory in MiB of this process while it predicts 32 images with n views."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AugmentedClassifier(build("simple_conv8", 3, SIDE, 10), FlowAugmenter(AffineSpace())).eval()
    model.predict(torch.rand(32, 3, SIDE, SIDE), n=n)
    lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [part(n, 30 if n < 10 else 15) for n in VIEWS for part in (sampling, warping)]
    more: dict[str, Any] = {}
    if pathlib.Path("/proc/self/status").exists():
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = pool.map(peak_memory, MEMORY_VIEWS, chunksize=1)
        more["prediction_memory_mib"] = dict(zip(map(str, MEMORY_VIEWS), peaks, strict=True))
        print("peak memory of a process that predicts 32 images, MiB, by views:", more["prediction_memory_mib"])
    note = f"forward and backward, batch {BATCH}, 3x{SIDE}x{SIDE}, 6 dimensions, 12 layers; medians, calls interleaved"
    save(__file__, QUESTION, rows, note=note, **more)


if __name__ == "__main__":
    main()
