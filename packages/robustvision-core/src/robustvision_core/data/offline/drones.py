"""Rendered quadrotors with known poses before random backgrounds: an offline stand-in beside UAVA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from robustvision_core.data.offline.cached import cached
from robustvision_core.data.offline.drone_meshes import KEYPOINTS, drone_mesh, drone_object
from robustvision_core.data.offline.render import render_mesh
from robustvision_core.data.poses.pinhole import project
from robustvision_core.data.poses.pose_set import PoseSet
from robustvision_core.data.registry.query import Query
from robustvision_core.data.sampling.hashed import uniform
from robustvision_core.errors import DataError, unknown_name

FORMAT = 1  # of the cached files; to be raised with every change of what is drawn
HFOV = 64.69  # degrees, the camera of UAVA
SIZES = {"tiny": (128, 96), "small": (320, 240)}
COUNTS = {"train": 512, "val": 128, "test": 128}
TRIES = 1000  # of a pose whose keypoints all lie inside the image
CHUNK = 1 << 19  # pixels drawn at once; more would leave the cache

_POSE, _SCENE, _NOISE, _COARSE = range(4)  # what a random number is for
_PATCHES = 7  # rectangles in a background
_GRIDS = (2, 5, 11, 23)  # cells along the height, of the unevenness of a background
TINT = 0.35  # strength of the colours in it


@dataclass(frozen=True)
class Scenes:
    """What is drawn; with a split and an index it says every pixel.

    Attributes:
        drone: `m2ed` (0.6 m across) or `tello` (a quarter of that).
        size: Width and height, pixels.
        seed: Of everything.
        near: Smallest distance along the camera's axis, metres.
        far: Largest distance.
        tilt: Largest pitch and roll, radians; the heading is any.
        margin: How far every keypoint is inside the image at least, pixels.
        noise: Standard deviation of the pixels' noise, of 255.
    """

    drone: str
    size: tuple[int, int]
    seed: int
    near: float
    far: float
    tilt: float
    margin: float
    noise: float

    def __post_init__(self) -> None:
        if self.drone not in KEYPOINTS:
            raise unknown_name("drone", self.drone, KEYPOINTS)
        if min(self.size) < 32 or max(self.size) > 4096:
            raise DataError(f"drones: size is {self.size}, expected 32 to 4096 pixels each way")
        if not 0.4 <= self.near <= self.far:
            raise DataError(f"drones: distance is {(self.near, self.far)}, expected 0.4 <= near <= far (metres)")
        if not (0 <= self.tilt <= math.pi and 0 <= self.margin < min(self.size) / 2 and self.noise >= 0):
            raise DataError(
                f"drones: tilt {self.tilt}, margin {self.margin} or noise {self.noise} is out of range: expected "
                f"tilt in [0, pi], margin in [0, {min(self.size) / 2:g}) and noise of 0 or more"
            )


def load_drones(
    query: Query,
    drone: str = "m2ed",
    size: str | Sequence[int] = "tiny",
    count: int | None = None,
    seed: int = 0,
    distance: tuple[float, float] = (0.7, 1.5),
    tilt: float = 0.6,
    margin: float = 4.0,
    noise: float = 6.0,
    cache: bool = True,
) -> PoseSet:
    """A drone of UAVA's keypoints and camera at random poses, lit from anywhere above, before random backgrounds.

    Item `i` of a split depends on the options and (seed, split, i) alone. As in the paper, all keypoints are inside
    the image: a pose that leaves it is drawn again. Both drones are seen at the same distances by default, so that the
    tello is four times smaller than the m2ed; a nearer `distance` suits it at size tiny.

    Args:
        query: Its `split` is `train`, `val` or `test`; images are kept in `<root>/cache` where that can be
            written.
        drone: `m2ed` or `tello`.
        size: `tiny` (128x96), `small` (320x240), `"WxH"` or (width, height).
        count: Items; None gives 512 for training and 128 otherwise.
        seed: Of poses, lights, backgrounds and noise.
        distance: Nearest and farthest, metres along the camera's axis, uniform between.
        tilt: Largest pitch and roll, radians, uniform; the heading is uniform over the circle.
        margin: Distance of every keypoint from the border, at least, pixels.
        noise: Standard deviation of the noise of every pixel, on the scale to 255.
        cache: Keep and reuse the images.

    Raises:
        DataError: An option is out of range, or the drone does not fit into the image at these distances.
    """
    count = COUNTS[query.split] if count is None else count
    if count < 1:
        raise DataError(f"drones: count is {count}, expected 1 or more")
    near, far = distance
    scenes = Scenes(drone, pixels(size), seed, float(near), float(far), float(tilt), float(margin), float(noise))
    stream = list(COUNTS).index(query.split)
    make = partial(draw, scenes, stream, count)
    key = ("drones", FORMAT, torch.__version__, *astuple(scenes), stream, count)
    width, height = scenes.size
    shapes = {"images": (count, 3, height, width), "R": (count, 3, 3), "t": (count, 3)}
    held = cached(query.root / "cache", key, shapes, make) if cache else make()
    return PoseSet(held["images"], held["R"], held["t"], camera(scenes.size), (drone_object(drone),), name=query.title)


def pixels(size: str | Sequence[int]) -> tuple[int, int]:
    """(width, height) of a name of `SIZES`, `"WxH"` or a pair."""
    try:
        chosen = SIZES.get(size) or tuple(size.split("x")) if isinstance(size, str) else tuple(size)
        width, height = (int(side) for side in chosen)
    except (TypeError, ValueError) as error:
        raise DataError(f"drones: size is {size!r}, expected {', '.join(SIZES)}, WxH or (width, height)") from error
    return width, height


def camera(size: tuple[int, int]) -> Tensor:
    """(3, 3) intrinsics of UAVA's field of view for a width and height."""
    width, height = size
    focal = width / 2 / math.tan(math.radians(HFOV) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def draw(scenes: Scenes, stream: int, count: int) -> dict[str, Tensor]:
    """Images (count, 3, H, W) uint8 of the scenes 0..count - 1 of a stream, and their R and t."""
    index = torch.arange(count)
    R, t = poses(scenes, stream, index)
    width, height = scenes.size
    images = torch.empty(count, 3, height, width, dtype=torch.uint8)
    for part in index.split(max(1, CHUNK // (width * height))):
        images[part] = photograph(scenes, stream, part, R[part], t[part])
    return {"images": images, "R": R, "t": t}


def poses(scenes: Scenes, stream: int, index: Tensor) -> tuple[Tensor, Tensor]:
    """R (B, 3, 3) and t (B, 3) of the scenes `index` (B,), the first draw of each that has its keypoints inside."""
    K, points = camera(scenes.size).double(), torch.tensor(KEYPOINTS[scenes.drone], dtype=torch.float64)
    limit = torch.tensor(scenes.size) - scenes.margin
    R, t = points.new_empty(len(index), 3, 3), points.new_empty(len(index), 3)
    missing = torch.arange(len(index))
    for attempt in range(TRIES):
        drawn = uniform(scenes.seed, (_POSE, stream, index[missing], attempt), 6).double()
        R[missing], t[missing] = _pose(scenes, drawn, K)
        seen = project(points, R[missing], t[missing], K)
        missing = missing[((seen < scenes.margin) | (seen > limit)).flatten(1).any(1)]
        if not len(missing):
            return R.float(), t.float()
    raise DataError(
        f"drones: found no pose of the {scenes.drone} at {scenes.near:g} to {scenes.far:g} m inside {scenes.size} with "
        f"a margin of {scenes.margin:g} pixels: raise the distance or lower the margin"
    )


def _pose(scenes: Scenes, drawn: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """A pose from six numbers in [0, 1) each, (B, 6): heading, pitch, roll, distance and the place in the image."""
    yaw = (drawn[:, 0] * 2 - 1) * math.pi
    pitch, roll = ((drawn[:, k] * 2 - 1) * scenes.tilt for k in (1, 2))
    upright = torch.diag(drawn.new_tensor([1.0, -1.0, -1.0]))  # the drone's y up, its nose to the camera
    R = _about(0, pitch) @ _about(2, roll) @ upright @ _about(1, yaw)
    depth = scenes.near + (scenes.far - scenes.near) * drawn[:, 3]
    place = torch.cat([drawn[:, 4:6] * torch.tensor(scenes.size), torch.ones_like(drawn[:, :1])], 1)
    return R, depth[:, None] * torch.linalg.solve(K, place.T).T


def _about(axis: int, angle: Tensor) -> Tensor:
    """Rotations (B, 3, 3) about a coordinate axis by (B,) radians."""
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    R = torch.eye(3, dtype=angle.dtype).repeat(len(angle), 1, 1)
    R[:, i, i], R[:, j, j], R[:, i, j], R[:, j, i] = angle.cos(), angle.cos(), -angle.sin(), angle.sin()
    return R


def photograph(scenes: Scenes, stream: int, index: Tensor, R: Tensor, t: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 of the scenes `index` (B,) of a stream, with the drone at R and t."""
    drawn = uniform(scenes.seed, (_SCENE, stream, index), 8 + 9 * _PATCHES)
    ground = _background(scenes, stream, index, drawn[:, 4:])
    light = torch.stack([2 * drawn[:, 0] - 1, -0.3 - drawn[:, 1], -0.2 - drawn[:, 2]], -1)
    mesh = drone_mesh(scenes.drone)
    seen = render_mesh(mesh.vertices, mesh.faces, mesh.colours, R, t, camera(scenes.size), scenes.size, light=light)
    scene = seen.colour.movedim(-1, 1) + ground * (1 - seen.mask[:, None])
    scene = scene * (0.75 + 0.5 * drawn[:, 3])[:, None, None, None]  # exposure
    levels = scene * 255 + scenes.noise * _normal(scenes.seed, (_NOISE, stream, index), scene[0].numel()).view(
        scene.shape
    )
    return levels.round_().clamp_(0, 255).to(torch.uint8)


def _background(scenes: Scenes, stream: int, index: Tensor, drawn: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1]: a wall of one tint, uneven at several scales, with things of muted colours before it.

    The drone's colours are stronger than any of these, as those of a drone in a room are.
    """
    width, height = scenes.size
    wall, patches = drawn[:, :4], drawn[:, 4:].unflatten(1, (_PATCHES, 9))
    ground = (0.25 + 0.5 * wall[:, :1] + TINT * (wall[:, 1:] - 0.5))[:, :, None, None].repeat(1, 1, height, width)
    for scale, cells in enumerate(_GRIDS):
        columns = math.ceil(cells * width / height)
        uneven = uniform(scenes.seed, (_COARSE, stream, index, scale), cells * columns).view(-1, 1, cells, columns)
        ground += functional.interpolate(uneven - 0.5, (height, width), mode="bilinear") * 0.5 * 0.75**scale
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for patch in patches.unbind(1):
        cover = _rectangle(x / height, y / height, patch * torch.tensor([width / height, *[1.0] * 8]), height)[:, None]
        colour = patch[:, 5:6] + TINT * (patch[:, 6:9] - 0.5)
        ground.lerp_(colour[:, :, None, None].expand_as(ground), cover * 0.85)
    return ground.clamp_(0, 1)


def _rectangle(x: Tensor, y: Tensor, drawn: Tensor, height: int) -> Tensor:
    """Coverage (B, H, W) of a rectangle by numbers (B, 5 or more): place, turn and sides, in units of the height."""
    px, py, turn, wide, high = (column[:, None, None] for column in drawn[:, :5].unbind(1))
    cos, sin = (turn * math.pi).cos(), (turn * math.pi).sin()
    u = ((x - px) * cos + (y - py) * sin).abs_() - (0.02 + 0.2 * wide)
    v = ((y - py) * cos - (x - px) * sin).abs_() - (0.02 + 0.2 * high)
    return (0.5 - torch.maximum(u, v) * height).clamp_(0, 1)


def _normal(seed: int, keys: tuple[Tensor | int, ...], count: int) -> Tensor:
    """Normal numbers, addressed as `uniform`'s; none beyond 5.3."""
    return torch.erfinv(2 * uniform(seed, keys, count) - (1 - 2.0**-24)) * math.sqrt(2)
