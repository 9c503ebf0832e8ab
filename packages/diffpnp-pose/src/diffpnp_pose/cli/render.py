"""`diffpnp-pose render`: a drone at a pose."""

from __future__ import annotations

import sys

import torch
from robustvision_core.data import render_mesh
from robustvision_core.data.offline.drone_meshes import drone_mesh
from robustvision_core.data.offline.drones import camera, pixels
from robustvision_core.errors import UserError
from robustvision_core.run.files import atomic_write
from torch import Tensor

from diffpnp_pose.cli.options import RenderConfig
from diffpnp_pose.cli.outputs import writing
from diffpnp_pose.geometry.rotations import so3_exp

_BACKGROUND = (0.82, 0.86, 0.9)
_LARGEST = 4096  # pixels a side, as of the rendered data sets


def render(config: RenderConfig) -> None:
    """Draw the drone."""
    size = pixels(config.size)
    if min(size) < 1 or max(size) > _LARGEST:
        raise UserError(f"--size is {size[0]}x{size[1]}, expected 1 to {_LARGEST} pixels each way")
    mesh = drone_mesh(config.drone)
    R = so3_exp(torch.deg2rad(torch.tensor(config.rotation)))
    seen = render_mesh(
        mesh.vertices, mesh.faces, mesh.colours, R, torch.tensor(config.translation), camera(size), size, supersample=4
    )
    covered = float(seen.mask.sum())
    if covered < 0.5:
        raise UserError(
            f"nothing of the drone is in the image, {size[0]}x{size[1]} at translation {config.translation}: "
            "z must be positive, and the image large enough"
        )
    picture = seen.colour + (1 - seen.mask[..., None]) * torch.tensor(_BACKGROUND)
    with writing(config.out):
        write_png(picture, config.out)
    sys.stdout.write(f"{config.drone} on {covered:.0f} of {size[0]}x{size[1]} pixels, in {config.out}\n")


def write_png(picture: Tensor, path: str) -> None:
    """Write colours (H, W, 3) in [0, 1], one pixel each."""
    from matplotlib.image import imsave

    with atomic_write(path) as temporary:
        imsave(temporary, picture.clamp(0, 1).numpy(), format="png")
