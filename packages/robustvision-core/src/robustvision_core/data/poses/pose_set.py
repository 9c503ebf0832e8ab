"""Images of objects with known poses.

Conventions, the same for every source:
    * poses take points of the object to the camera, `X_camera = R X_object + t`, in metres; the camera looks along
      +z, its x axis points right in the image and its y axis down;
    * pixel (column j, row i) covers the square [j, j + 1] x [i, i + 1]: the image is [0, W] x [0, H], its upper left
      corner is (0, 0) and the centre of its first pixel is (0.5, 0.5). Resizing an image by s multiplies K's first two
      rows and all pixel coordinates by s, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustvision_core.data.image_set import ImageSet, describe, positions
from robustvision_core.data.poses.pinhole import project
from robustvision_core.data.sampling.splits import split
from robustvision_core.errors import DataError

RIGID = 1e-3  # how far the entries of R^T R may be from the identity's


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float32, metres.
        faces: (F, 3) int64, three vertices each.
        colours: (F, 3) float32 RGB of each face, in [0, 1].

    Raises:
        DataError: A tensor has the wrong shape, or a face names no vertex.
    """

    vertices: Tensor
    faces: Tensor
    colours: Tensor

    def __post_init__(self) -> None:
        if self.vertices.dim() != 2 or self.vertices.shape[1] != 3 or not self.vertices.is_floating_point():
            raise DataError(f"a mesh needs vertices (V, 3) float, got {describe(self.vertices)}")
        if self.faces.dim() != 2 or self.faces.shape[1] != 3 or self.faces.dtype != torch.int64:
            raise DataError(f"a mesh needs faces (F, 3) int64, got {describe(self.faces)}")
        if self.colours.shape != self.faces.shape or not self.colours.is_floating_point():
            raise DataError(f"a mesh needs colours {tuple(self.faces.shape)} float, got {describe(self.colours)}")
        _check_range("mesh", "faces", self.faces, len(self.vertices))

    def to(self, device: str | torch.device) -> Mesh:
        """The mesh on another device."""
        return Mesh(self.vertices.to(device), self.faces.to(device), self.colours.to(device))


@dataclass(frozen=True, eq=False)
class PoseObject:
    """A kind of object.

    Attributes:
        name: What to call it.
        keypoints: (P, 3) float32 of the object's own frame, metres.
        diameter: The length that errors are compared with, metres: the largest distance of two vertices unless the
            source publishes its own.
        mesh: Its surface; None where the source has none.

    Raises:
        DataError: The keypoints are not (P, 3), or the diameter is not positive.
    """

    name: str
    keypoints: Tensor
    diameter: float
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        if self.keypoints.dim() != 2 or self.keypoints.shape[1] != 3 or not self.keypoints.is_floating_point():
            raise DataError(f"{self.name}: keypoints must be (P, 3) float, got {describe(self.keypoints)}")
        if not self.diameter > 0:
            raise DataError(f"{self.name}: the diameter must be positive, got {self.diameter}")


@dataclass(frozen=True, eq=False)
class PoseSet:
    """N objects seen in M images, all tensors on one device; the module says how poses and pixels are counted.

    An image may show several objects: each is one item. P is the largest number of keypoints; an object with fewer has
    zeros behind its own, which are never `visible`.

    Attributes:
        images: (M, C, H, W) uint8.
        R: (N, 3, 3) float32 rotations, object to camera.
        t: (N, 3) float32, metres, in front of the camera.
        K: (N, 3, 3) float32 intrinsics in pixels with positive focal lengths; (3, 3) stands for all.
        objects: The kinds of object.
        object_id: (N,) int64, which of `objects`; default 0.
        image_index: (N,) int64, which of `images` shows the item; default `arange(N)`.
        keypoints_2d: (N, P, 2) float32 pixels (x, y); default the projections of the keypoints.
        visible: (N, P) bool: in front of the camera and inside the image, whether or not something is before it; or
            what the source says. Default from `keypoints_2d`.
        boxes: (N, 4) float32 pixels (left, top, right, bottom) around the whole object, hidden parts and parts
            outside the image included; default that of the mesh's vertices, of the keypoints where there is no mesh.
        ids: (N,) int64, the identity of each item in its source; kept by `take`. Default `arange(N)`.
        name: What to call the set in messages.

    Raises:
        DataError: A tensor has the wrong type, shape or device, R is no rotation, t is not in front of the camera, K is
            no camera matrix, or an index is out of range.
    """

    images: Tensor
    R: Tensor
    t: Tensor
    K: Tensor
    objects: tuple[PoseObject, ...]
    object_id: Tensor = None  # type: ignore[assignment]  # these are filled in __post_init__
    image_index: Tensor = None  # type: ignore[assignment]
    keypoints_2d: Tensor = None  # type: ignore[assignment]
    visible: Tensor = None  # type: ignore[assignment]
    boxes: Tensor = None  # type: ignore[assignment]
    ids: Tensor = None  # type: ignore[assignment]
    name: str = "poses"

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise DataError(f"{self.name}: images must be (M, C, H, W) uint8, got {describe(self.images)}")
        if not self.objects:
            raise DataError(f"{self.name}: at least one object is needed")
        if self.K.shape == (3, 3):
            object.__setattr__(self, "K", self.K.expand(len(self.R), 3, 3))
        self._fill_integers()
        self._check("R", torch.float32, 3, 3)
        self._check("t", torch.float32, 3)
        self._check("K", torch.float32, 3, 3)
        _check_range(self.name, "object_id", self.object_id, len(self.objects))
        _check_range(self.name, "image_index", self.image_index, len(self.images))
        _check_geometry(self.name, self.R, self.t, self.K)
        self._fill_pixels()

    def _fill_integers(self) -> None:
        order = torch.arange(len(self.R), device=self.images.device)
        for field, default in (("object_id", torch.zeros_like(order)), ("image_index", order), ("ids", order)):
            if getattr(self, field) is None:
                object.__setattr__(self, field, default)
            self._check(field, torch.int64)

    def _fill_pixels(self) -> None:
        points = max(len(one.keypoints) for one in self.objects)
        if self.keypoints_2d is None:
            object.__setattr__(self, "keypoints_2d", project(self.keypoints_3d, self.R, self.t, self.K))
        self._check("keypoints_2d", torch.float32, points, 2)
        if self.visible is None:
            object.__setattr__(self, "visible", self._inside())
        self._check("visible", torch.bool, points)
        if self.boxes is None:
            object.__setattr__(self, "boxes", self._outlines())
        self._check("boxes", torch.float32, 4)

    def _check(self, field: str, dtype: torch.dtype, *shape: int) -> None:
        value: Tensor = getattr(self, field)
        expected = (len(self.R), *shape)
        if value.dtype != dtype or value.shape != expected:
            kind = str(dtype).removeprefix("torch.")
            raise DataError(f"{self.name}: {field} must be {expected} {kind}, got {describe(value)}")
        if value.device != self.images.device:
            raise DataError(f"{self.name}: images are on {self.images.device} but {field} on {value.device}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise DataError(f"{self.name}: {field} holds a value that is not finite")

    def __len__(self) -> int:
        return len(self.R)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.images.device

    @property
    def keypoints_3d(self) -> Tensor:
        """(N, P, 3) float32: the keypoints of each item's object, in metres, in its own frame."""
        return self._padded().index_select(0, self.object_id)

    def take(self, indices: Tensor | Sequence[int]) -> PoseSet:
        """The items at `indices` (M,), in that order, with their ids; a (N,) bool mask also works.

        Images that no item shows any more are dropped; all objects stay.
        """
        chosen = positions(indices, self.device)
        used, image_index = self.image_index[chosen].unique(return_inverse=True)
        images = self.images if len(used) == len(self.images) else self.images.index_select(0, used)
        fields = ("R", "t", "K", "object_id", "keypoints_2d", "visible", "boxes", "ids")
        return replace(self, images=images, image_index=image_index, **{f: getattr(self, f)[chosen] for f in fields})

    def split(self, sizes: Sequence[float], *, seed: int, stratified: bool = True) -> tuple[PoseSet, ...]:
        """Disjoint random parts, as `robustvision_core.data.split` cuts image sets; stratified by object."""
        return tuple(self.take(part.ids) for part in split(self._labelled(), sizes, seed=seed, stratified=stratified))

    def to(self, device: str | torch.device) -> PoseSet:
        """The set on another device."""
        moved = {f: v.to(device) for f, v in vars(self).items() if isinstance(v, Tensor)}
        objects = tuple(
            replace(o, keypoints=o.keypoints.to(device), mesh=o.mesh and o.mesh.to(device)) for o in self.objects
        )
        return replace(self, objects=objects, **moved)

    def _labelled(self) -> ImageSet:
        """The items as a labelled set, without their images."""
        blank = torch.zeros(len(self), 1, 1, 1, dtype=torch.uint8, device=self.device)
        return ImageSet(blank, self.object_id, tuple(one.name for one in self.objects), name=self.name)

    def _padded(self) -> Tensor:
        """(objects, P, 3) float32."""
        points = [one.keypoints.to(self.device, torch.float32) for one in self.objects]
        return torch.nn.utils.rnn.pad_sequence(points, batch_first=True)

    def _inside(self) -> Tensor:
        width, height = self.shape[2], self.shape[1]
        limit = torch.tensor([width, height], device=self.device)
        within = ((self.keypoints_2d >= 0) & (self.keypoints_2d <= limit)).all(-1)
        ahead = (self.keypoints_3d @ self.R.mT + self.t[:, None])[..., 2] > 0
        counts = torch.tensor([len(one.keypoints) for one in self.objects], device=self.device)
        own = torch.arange(within.shape[1], device=self.device) < counts[self.object_id][:, None]
        return within & ahead & own

    def _outlines(self) -> Tensor:
        boxes = torch.empty(len(self), 4, device=self.device)
        for number, one in enumerate(self.objects):
            rows = (self.object_id == number).nonzero()[:, 0]
            points = one.keypoints if one.mesh is None else one.mesh.vertices
            # in pieces, as a scanned mesh has tens of thousands of vertices
            for part in rows.split(max(1, (1 << 22) // len(points))):
                seen = project(points.to(boxes), self.R[part], self.t[part], self.K[part])
                boxes[part] = torch.cat([seen.amin(1), seen.amax(1)], 1)
        return boxes


def _check_range(name: str, field: str, value: Tensor, count: int) -> None:
    if value.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(value))
    if low < 0 or high >= count:
        raise DataError(f"{name}: {field} holds {low if low < 0 else high}, expected 0..{count - 1}")


def _check_geometry(name: str, R: Tensor, t: Tensor, K: Tensor) -> None:
    eye = torch.eye(3, device=R.device)
    wrong = (R.mT @ R - eye).abs().amax((1, 2)) > RIGID
    wrong |= torch.linalg.det(R) < 0
    flat = K[:, 2] != eye[2]
    tests = (
        ("R is no rotation matrix", wrong),
        ("t is not in front of the camera (z > 0)", t[:, 2] <= 0),
        (
            "K is no camera matrix (positive focal lengths, last row 0 0 1)",
            flat.any(1) | (K[:, 0, 0] <= 0) | (K[:, 1, 1] <= 0),
        ),
    )
    for what, bad in tests:
        if bool(bad.any()):
            raise DataError(f"{name}: of item {int(bad.nonzero()[0, 0])}, {what}; {int(bad.sum())} items have this")
