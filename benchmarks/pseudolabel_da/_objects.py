"""Two folders of eight objects: crops drawn from their meshes, and real photos of them (LM-O)."""

from __future__ import annotations

import pathlib

from diffpnp_pose.cli.data import load
from PIL import Image
from torch import Tensor

from benchmarks.diffpnp_pose._meshes import drawn_from

OBJECTS = (1, 5, 6, 8, 9, 10, 11, 12)
DRAWN, SIDE = 240, 64
WHERE = pathlib.Path("runs/benchmarks/pseudolabel_da/objects")


def folders() -> pathlib.Path:
    """The folder that holds `drawn` and `photos`, one folder a class in each; drawn at the first call."""
    for number in OBJECTS:
        name = f"obj_{number:02d}"
        if not (WHERE / "photos" / name).is_dir():
            drawn, photos = _crops(number)
            _write(WHERE / "drawn" / name, drawn)
            _write(WHERE / "photos" / name, photos)
    return WHERE


def _crops(number: int) -> tuple[Tensor, Tensor]:
    """Drawn crops on photos of other things, and all real ones, (N, 3, 64, 64) uint8."""
    config = drawn_from(number, WHERE / "meshes", size=f"{SIDE}x{SIDE}", val_size=DRAWN, test_size=0)
    return load(config, "val").images, load(config, "test").images


def _write(folder: pathlib.Path, images: Tensor) -> None:
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(part / f"{number:04d}.png")
    part.rename(folder)
