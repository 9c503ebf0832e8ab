"""`pseudolabel-da prepare-mnistm`: MNIST-M as files."""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
from PIL import Image
from robustvision_core.data import ImageSet, load
from robustvision_core.errors import UserError
from robustvision_core.run.files import atomic_write

from pseudolabel_da.cli.options import PrepareConfig


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
