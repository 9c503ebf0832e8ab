"""Sampling, warping and predicting beside plain per-sample implementations and kornia."""

from __future__ import annotations

import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from flowaug import AffineSpace, AugmentedClassifier, ConditionalFlow, FlowAugmenter, FlowSpec
from flowaug.networks import build
from flowaug.warp import warp
from torch import Tensor

from benchmarks.common import interleaved, save
from benchmarks.flowaug._plain import PlainFlow, densities, kornia_warp, plain_warp
from benchmarks.memory import largest_kib, peak_mib

QUESTION = "What do sampling, warping and prediction cost beside plain per-sample code and kornia?"
BATCH, SIDE, CONTEXT = 128, 32, 32
VIEWS = [4, 20]
WIDTHS = [32, 64]
SHORT = 10  # layers of ours; what that costs in likelihood stands under `densities`
MEMORY_VIEWS = [20, 100, 400]


def backward_of(function: Callable[[], tuple[Tensor, ...]]) -> Callable[[], None]:
    """Forward and backward."""

    def call() -> None:
        torch.stack([value.square().sum() for value in function()]).sum().backward()

    return call


def samplers(n: int, width: int, layers: int) -> dict[str, Callable[[], None]]:
    """Sampling with log-density by so many layers, beside twelve of the published form at the same width.

    Ours has its default gradient, which is unbiased; the published form its own, straight-through one.
    """
    straight = FlowSpec(width=width, gradient="straight_through")
    ours = ConditionalFlow(6, CONTEXT, FlowSpec(layers=layers, width=width))
    biased = ConditionalFlow(6, CONTEXT, replace(straight, layers=layers))
    plain = PlainFlow(ConditionalFlow(6, CONTEXT, straight).base, 6, CONTEXT, width=width)
    context = torch.randn(BATCH, CONTEXT, requires_grad=True)
    return {
        "ours": backward_of(lambda: ours.sample(context, n)),
        "plain": backward_of(lambda: plain.sample(context, n)),
        "other": backward_of(lambda: biased.sample(context, n)),
    }


def sampling(n: int, width: int, layers: int, repeats: int) -> dict[str, Any]:
    """The row of sampling."""
    name = f"sample + log-density, width {width}, {layers} layers"
    found = row(name, n, samplers(n, width, layers), repeats, 2.5, "ours with the published, biased gradient")
    return found | memory(f"samplers({n}, {width}, {layers})")


def warpers(n: int) -> dict[str, Callable[[], None]]:
    """Warping n views of each image."""
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    matrices = AffineSpace().matrix(torch.rand(BATCH, n, 6) - 0.5, (SIDE, SIDE)).requires_grad_()
    assert torch.equal(warp(images, matrices), plain_warp(images, matrices))
    return {
        "ours": backward_of(lambda: (warp(images, matrices),)),
        "plain": backward_of(lambda: (plain_warp(images, matrices),)),
        "other": backward_of(lambda: (kornia_warp(images, matrices),)),
    }


def warping(n: int, repeats: int) -> dict[str, Any]:
    """The row of warping."""
    found = row("warp, bit-identical", n, warpers(n), repeats, 1.4, "kornia homography_warp")
    return found | memory(f"warpers({n})")


def memory(functions: str) -> dict[str, float]:
    """Growth of the largest resident memory over a call, each in a process of its own."""
    names = {"ours": "ours (MiB)", "plain": "plain (MiB)", "other": "the other (MiB)"}
    lines = "from benchmarks.flowaug.speed import *\nwarm = call = "
    of = {key: peak_mib(f"{lines}{functions}[{key!r}]") for key in names}
    return {shown: round(of[key], 1) for key, shown in names.items()}


def row(
    what: str, n: int, functions: dict[str, Callable[[], None]], repeats: int, aim: float, other: str
) -> dict[str, Any]:
    """The median times of interleaved calls, as a row."""
    held = interleaved(functions, repeats, warmup=2, clock=time.process_time)
    medians = {key: 1e3 * statistics.median(times) for key, times in held.items()}
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
    return largest_kib() / 1024


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [
        sampling(n, width, layers, 60 if n < 10 else 30) for width in WIDTHS for layers in (12, SHORT) for n in VIEWS
    ]
    rows += [warping(n, 20 if n < 10 else 10) for n in VIEWS]
    more: dict[str, Any] = {"densities": densities()}
    print("negative log-likelihood of a known density, by layers:", more["densities"])
    if pathlib.Path("/proc/self/status").exists():
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = pool.map(peak_memory, MEMORY_VIEWS, chunksize=1)
        more["prediction_memory_mib"] = dict(zip(map(str, MEMORY_VIEWS), peaks, strict=True))
        print("peak memory of a process that predicts 32 images, MiB, by views:", more["prediction_memory_mib"])
    note = (
        f"forward and backward, batch {BATCH}, 3x{SIDE}x{SIDE}, 6 dimensions; processor time, medians of interleaved "
        "calls; MiB: growth of the largest resident memory over a call, in a process of its own; plain: the published "
        "form, 12 layers, width 32 in its code, 64 in the paper"
    )
    save(__file__, QUESTION, rows, note=note, **more)


if __name__ == "__main__":
    main()
