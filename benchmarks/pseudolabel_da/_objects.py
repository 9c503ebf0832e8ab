"""Two folders of eight objects: crops drawn from their meshes, and real photos of them (LM-O)."""

from __future__ import annotations

import pathlib

import torch
from diffpnp_pose.cli.data import load
from diffpnp_pose.cli.recipes import TrainConfig
from PIL import Image
from robustvision_core.data.reading.archives import read_members
from robustvision_core.data.registry.query import data_root
from torch import Tensor

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
    root = data_root()
    mesh = WHERE / "meshes" / f"obj_{number:06d}.ply"
    name = f"lmo/models/{mesh.name}"
    mesh.parent.mkdir(parents=True, exist_ok=True)
    mesh.write_bytes(read_members(root / "pose" / "lmo_models.zip", name.__eq__)[name])
    config = TrainConfig.PRESETS["mesh"].changed(
        **{
            "data": f"mesh:{mesh}",
            "object": number,
            "size": f"{SIDE}x{SIDE}",
            "val_size": DRAWN,
            "test_size": 0,
            "device": "cpu",
            "progress": False,
            "mesh.background": str(root / "mnist-m" / "bsds500_train.zip"),
            "mesh.elevation": (0.0, 90.0),
            "mesh.roll": 45.0,
            "mesh.test": "lmo",
        }
    )
    return load(config, "val").images, load(config, "test").images


def _write(folder: pathlib.Path, images: Tensor) -> None:
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        pixels = image if image.dtype == torch.uint8 else (255 * image).round().to(torch.uint8)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(part / f"{number:04d}.png")
    part.rename(folder)
