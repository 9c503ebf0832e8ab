"""Crops drawn from the meshes of LM-O's objects, as the benchmarks train and test on them."""

from __future__ import annotations

import pathlib
from typing import Any

from diffpnp_pose.cli.recipes import TrainConfig
from robustvision_core.data.reading.archives import read_members
from robustvision_core.data.registry.query import data_root


def drawn_from(number: int, folder: pathlib.Path, **changes: Any) -> TrainConfig:
    """The recipe `mesh` for an object, its mesh laid into `folder`, tested on all real photos of it."""
    root = data_root()
    mesh = folder / f"obj_{number:06d}.ply"
    if not mesh.exists():
        name = f"lmo/models/{mesh.name}"
        mesh.parent.mkdir(parents=True, exist_ok=True)
        mesh.write_bytes(read_members(root / "pose" / "lmo_models.zip", name.__eq__)[name])
    options = {
        "data": f"mesh:{mesh}",
        "object": number,
        "device": "cpu",
        "progress": False,
        "mesh.background": str(root / "mnist-m" / "bsds500_train.zip"),
        "mesh.elevation": (0.0, 90.0),
        "mesh.roll": 45.0,
        "mesh.test": "lmo",
    }
    return TrainConfig.PRESETS["mesh"].changed(**options, **changes)
