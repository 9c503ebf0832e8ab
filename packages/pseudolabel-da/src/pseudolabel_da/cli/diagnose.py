"""`pseudolabel-da diagnose` and `prepare-mnistm`."""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from robustvision_core.data import ImageSet, load
from robustvision_core.errors import UserError
from robustvision_core.run.files import atomic_write
from robustvision_core.run.folder import load_checkpoint, read_config

from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.diagnosis.diagnostics import PeriodRecord, Verdict

ADVICE = {
    Verdict.HEALTHY: "the pseudo-labels are healthy: nothing to mend",
    Verdict.LIBERAL: (
        "liberal: much of the target has a label, and the network contradicts ever more of them. Take fewer "
        "(smaller --shares, larger --rho or --threshold), build the set anew (--relabel True), and keep the network "
        "from learning its errors by heart (--augment strong)"
    ),
    Verdict.FEW_CLASSES: (
        "few classes: some classes take over. Select by class (--selector balanced, with --prior if classes are not "
        "even, or --on-collapse rebalance), estimate batch norm on the target (--batch-norm target), or label a few "
        "target samples of each class (--labelled 10)"
    ),
    Verdict.HYPER_CONSERVATIVE: (
        "hyper-conservative: next to nothing is selected. Where the threshold is above the ceiling, label smoothing "
        "forbids it: --label-smoothing 0, or --ceiling-aware True. Else lower --rho, take --selector balanced, which "
        "has no threshold, or label a few target samples (--labelled 10)"
    ),
}


@dataclass(frozen=True)
class DiagnoseConfig:
    """Print the table of a run's selections, a verdict, and what to do about it."""

    run: str
    """Run folder that training wrote, or is writing."""


@dataclass(frozen=True)
class PrepareConfig:
    """Write MNIST-M from MNIST and photos: the same images on every machine."""

    out: str
    """The .npz file, or the folder of PNG files, to write."""
    format: Literal["npz", "png"] = "npz"
    """npz holds x_train, y_train, x_test and y_test; png is out/SPLIT/CLASS/NUMBER.png."""
    data_root: str = ""
    """Folder of all data sets; empty takes ROBUSTVISION_DATA, else ~/.cache/robustvision."""
    download: bool = False
    """Fetch MNIST where it is missing."""
    photos: str = ""
    """Folder or archive of photos; empty looks for BSDS500 under the data root."""
    backgrounds: Literal["photos", "procedural"] = "photos"
    """procedural needs no photos."""
    size: int = 28
    """28, or 32 by a black border around the digit."""
    seed: int = 0
    """Of the crops."""
    binarise: bool = True
    """Digits are black or white before they are blended, as in the published set."""


def diagnose_run(config: DiagnoseConfig) -> None:
    """Print the periods of a run and what to do."""
    read_config(config.run, TrainConfig, "pseudolabel-da train")
    state = load_checkpoint(pathlib.Path(config.run) / "checkpoint.pt")["step"]["_extra_state"]
    periods = [PeriodRecord.from_dict(record) for record in state["periods"]]
    if not periods:
        sys.stdout.write("no period yet: the run selects no pseudo-labels, or has not come to the adaptation\n")
        return
    stopped = [f"stopped: {state['stopped']}"] if state["stopped"] else []
    sys.stdout.write("\n".join([table(periods), *stopped, *advice(periods)]) + "\n")


def table(periods: Sequence[PeriodRecord]) -> str:
    """One line a period."""
    heads = ("epoch", "selected", "wrong", "total", "share", "threshold", "ceiling")
    heads += ("classes", "largest", "empty", "flips", "drift", "verdict")
    rows = [heads, *(_row(record) for record in periods)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def advice(periods: Sequence[PeriodRecord]) -> list[str]:
    """What to do, one line for each verdict that was given; healthy only where nothing else was."""
    given = [verdict for verdict in ADVICE if any(record.verdict is verdict for record in periods)]
    failures = [verdict for verdict in given if verdict is not Verdict.HEALTHY]
    return [ADVICE[verdict] for verdict in failures or given]


def _row(record: PeriodRecord) -> tuple[str, ...]:
    threshold = record.threshold
    levels = [t for t in threshold if t is not None] if isinstance(threshold, list) else None
    shown = _number(threshold) if not isinstance(threshold, list) else f"{min(levels):.3f}+" if levels else "-"
    return (
        str(record.epoch),
        str(record.selected),
        "-" if record.wrong is None else str(record.wrong),
        str(record.total),
        f"{record.share:.3f}",
        shown,
        f"{record.ceiling:.3f}",
        f"{record.effective_classes:.1f}",
        f"{record.max_share:.2f}",
        str(record.empty_classes),
        _number(record.flip_rate),
        _number(record.drift),
        record.verdict.value,
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def prepare_mnistm(config: PrepareConfig) -> None:
    """Write both splits, whole or not at all."""
    out = pathlib.Path(config.out).expanduser()
    if out.exists():
        raise UserError(f"{out} is there already: remove it, or give another --out")
    if config.photos and config.backgrounds == "procedural":
        raise UserError("--photos and --backgrounds procedural do not go together: leave out one")
    name = "mnist-m" if config.backgrounds == "photos" else "mnist-m-procedural"
    options: dict[str, Any] = {"size": config.size, "seed": config.seed, "binarise": config.binarise}
    if config.backgrounds == "photos":
        options["photos"] = config.photos
    sets = {
        split: load(name, split, config.data_root or None, config.download, **options) for split in ("train", "test")
    }
    (write_npz if config.format == "npz" else write_folders)(sets, out)
    sys.stdout.write(f"{' and '.join(f'{len(data)} {split}' for split, data in sets.items())} images in {out}\n")


def write_npz(sets: dict[str, ImageSet], out: pathlib.Path) -> None:
    """Write images (N, H, W, C) and labels (N,) of each split to one archive."""
    arrays: dict[str, Any] = {"classes": np.array(next(iter(sets.values())).classes)}
    for split, data in sets.items():
        arrays[f"x_{split}"] = data.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        arrays[f"y_{split}"] = data.labels.cpu().numpy()
    with atomic_write(out) as temporary, open(temporary, "wb") as file:  # NumPy would append .npz to a path
        np.savez_compressed(file, **arrays)


def write_folders(sets: dict[str, ImageSet], out: pathlib.Path) -> None:
    """Write `out/SPLIT/CLASS/ID.png`, into a folder beside `out` that takes its name when all is there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = pathlib.Path(folder) / out.name
        for split, data in sets.items():
            for name in data.classes:
                (made / split / name).mkdir(parents=True)
            pixels = data.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
            for image, label, number in zip(pixels, data.labels.tolist(), data.ids.tolist(), strict=True):
                Image.fromarray(image).save(made / split / data.classes[label] / f"{number:05d}.png")
        os.replace(made, out)
