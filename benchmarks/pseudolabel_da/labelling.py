"""A labelling round, a whole loop and the bookkeeping, beside the usual way with PIL images and data loaders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from pseudolabel_da import FixedThreshold, IncrementalPseudoLabeler, PseudoLabelPool, select_above
from pseudolabel_da.networks import SmallCNN
from pseudolabel_da.reading.reader import Reader, scale_images
from pseudolabel_da.reading.samples import TensorSamples
from robustvision_core.data import load_domains
from torch import Tensor

from benchmarks.common import interleaved, save, spread
from benchmarks.pseudolabel_da._plain import Pictures, label, loop

QUESTION = "What do a labelling round, the whole loop and the bookkeeping cost beside data loaders of PIL images?"
COPIES = 4  # of the 521 images of digits-shift, to have a set of some size without a file
POOL, THRESHOLD, HELD = 50_000, 0.6, 500


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    pair = load_domains("digits-shift")
    source, target = (
        (d.images.repeat(COPIES, 1, 1, 1), d.labels.repeat(COPIES)) for d in (pair.source_train, pair.target_train)
    )
    model = start(*source)
    rows = [
        labelling(model, target),
        *(whole(model, source, target, epochs) for epochs in (2, 1)),
        whole(model, source, target, 2, checked=True),
        bookkeeping(),
    ]
    note = f"{len(target[1])} target images of 28x28 pixels, small CNN, the same selections asserted"
    save(__file__, QUESTION, rows, note=note, unit="milliseconds, medians; ratios within one run")


def start(images: Tensor, labels: Tensor) -> torch.nn.Module:
    """A network that knows the source, so that some of the target is selected."""
    torch.manual_seed(0)
    labeler = IncrementalPseudoLabeler(SmallCNN().to(memory_format=torch.channels_last), batch_size=64)
    labeler.pretrain((images, labels), epochs=3)
    return labeler.model


def labelling(model: torch.nn.Module, target: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """One pass over the pool and its selection."""
    samples, pictures = TensorSamples(target[0]), Pictures(*target)
    reader = Reader(model, torch.device("cpu"), torch.float32, scale_images)

    def ours() -> dict[int, int]:
        found = select_above(reader.outputs(samples).logits.softmax(1), THRESHOLD)
        rows = found.mask.nonzero()[:, 0]
        return dict(zip(rows.tolist(), found.labels[rows].tolist(), strict=True))

    plain = ours()
    if not plain or plain != label(model, pictures, THRESHOLD, 256) or plain != label(model, pictures, THRESHOLD, 1):
        raise AssertionError("the two ways select differently")
    return compare(
        "labelling round",
        {
            "ours": ours,
            "loader": lambda: label(model, pictures, THRESHOLD, 256),
            "one": lambda: label(model, pictures, THRESHOLD, 1),
        },
        aim=2.0,
    )


def whole(
    model: torch.nn.Module,
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    epochs: int,
    checked: bool = False,
) -> dict[str, Any]:
    """Algorithm 1 with a selection in every epoch; `checked` with the estimate of wrong labels, which loaders lack."""
    pictures = Pictures(*source), Pictures(*target)
    options = {"batch_size": 64, "passes": "separate"}
    held = (source[0][:HELD], source[1][:HELD]) if checked else None

    def ours() -> dict[int, int]:
        labeler = IncrementalPseudoLabeler(copy.deepcopy(model), FixedThreshold(THRESHOLD), period=1, **options)
        found = labeler.fit(source, held, target[0], epochs=epochs)
        return dict(zip(found.rows.tolist(), found.labels.tolist(), strict=True))

    def plain() -> dict[int, int]:
        return loop(model, *pictures, THRESHOLD, epochs=epochs, period=1, batch=64)

    if ours() != plain():
        raise AssertionError("the two ways select differently")
    what = f"whole loop, {epochs} epoch{'s' * (epochs > 1)}" + ", wrong labels estimated" * checked
    return compare(what, {"ours": ours, "loader": plain}, aim=1.6, repeats=5)


def bookkeeping() -> dict[str, Any]:
    """Taking a selection of a tenth of a pool of 50,000 in."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(POOL, 10, generator=generator).softmax(1)
    selection = select_above(probs, float(probs.amax(1).quantile(0.9)))
    chosen, pool = set(selection.mask.nonzero()[:, 0].tolist()), PseudoLabelPool(POOL, 10)
    every = torch.arange(POOL)

    def ours() -> None:
        pool.update(selection, every)
        pool.rows()

    def lists() -> list[int]:
        return [index for index in range(POOL) if index not in chosen]

    return compare(f"bookkeeping, {POOL} samples", {"ours": ours, "loader": lists}, aim=None)


def compare(what: str, ways: dict[str, Callable[[], Any]], aim: float | None, repeats: int = 10) -> dict[str, Any]:
    """A row: medians in milliseconds, and how many times as long the usual way takes."""
    medians = {name: 1e3 * spread(times)["median"] for name, times in interleaved(ways, repeats, warmup=1).items()}
    return {
        "what": what,
        "ours (ms)": medians["ours"],
        "loaders (ms)": medians["loader"],
        "ratio": medians["loader"] / medians["ours"],
        "one image at a time (ratio)": medians["one"] / medians["ours"] if "one" in medians else "",
        "aim": aim if aim is not None else "below 1 ms",
    }


if __name__ == "__main__":
    main()
