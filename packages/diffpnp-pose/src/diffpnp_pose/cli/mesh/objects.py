"""A mesh file as an object with keypoints."""

from __future__ import annotations

import pathlib
import sys

import torch
from robustvision_core.data import Mesh, PoseObject
from robustvision_core.data.sources.ply import read_ply
from robustvision_core.errors import DataError, UserError
from torch import Tensor

_LARGEST = 5.0  # of an object in metres; what is larger is taken for millimetres
_DIRECTIONS = 2048  # along which the vertices that may be farthest apart are sought


def read_object(path: str, keypoints: int, unit: float = 0.0, points: str = "") -> PoseObject:
    """The object in a mesh file.

    Args:
        path: A PLY file; OBJ, STL, GLB and PLY files with textures are read by trimesh.
        keypoints: How many vertices to take, each farthest from those before.
        unit: Of the file in metres; 0 takes metres, and millimetres for meshes larger than 5.
        points: A table of keypoints (`x,y,z`) in the file's unit, instead of vertices.

    Raises:
        DataError: The file is missing, damaged, or holds no triangles.
    """
    file = pathlib.Path(path).expanduser()
    mesh = read_mesh(file)
    size = diameter(mesh.vertices)
    scale = unit or (1e-3 if size > _LARGEST else 1.0)
    if not unit and scale != 1:
        sys.stderr.write(f"{path} is {size:.4g} units across: taken for millimetres (--mesh.unit says otherwise)\n")
    vertices = mesh.vertices * scale
    chosen = read_points(points) * scale if points else farthest_points(used_vertices(vertices, mesh.faces), keypoints)
    return PoseObject(file.stem, chosen, size * scale, Mesh(vertices, mesh.faces, mesh.colours))


def read_mesh(file: pathlib.Path) -> Mesh:
    """The triangles of a file, with the colour of each face."""
    if not file.is_file():
        raise DataError(f"there is no mesh {file}")
    raw = file.read_bytes()
    if file.suffix.lower() == ".ply" and b"TextureFile" not in raw[:4096]:
        mesh = read_ply(raw, str(file))
    else:
        mesh = _by_trimesh(file)
    if not len(mesh.faces):
        raise DataError(f"{file} holds no triangles: it is no mesh, or one of another format than its name says")
    return mesh


def _by_trimesh(file: pathlib.Path) -> Mesh:
    try:
        import trimesh
    except ModuleNotFoundError as error:
        raise UserError(f'{file}: files other than plain PLY are read by trimesh: pip install "trimesh"') from error
    try:
        loaded = trimesh.load(str(file), force="mesh", process=False)
        visual = loaded.visual  # pyright: ignore[reportAttributeAccessIssue]
        colours = (visual if hasattr(visual, "face_colors") else visual.to_color()).face_colors[:, :3] / 255
        arrays = loaded.vertices, loaded.faces, colours  # pyright: ignore[reportAttributeAccessIssue]
        vertices, faces, tints = (torch.tensor(array) for array in arrays)
        return Mesh(vertices.float(), faces.long(), tints.float())
    except Exception as error:  # trimesh raises whatever its readers do
        raise DataError(f"{file} cannot be read as a mesh: {type(error).__name__}: {error}") from error


def used_vertices(vertices: Tensor, faces: Tensor) -> Tensor:
    """The vertices that a face has."""
    return vertices[faces.unique()]


def farthest_points(points: Tensor, count: int) -> Tensor:
    """`count` of points (V, 3): the one farthest from their mean, then always the farthest from all chosen.

    Raises:
        DataError: There are fewer distinct points.
    """
    chosen, distance = [], (points - points.mean(0)).norm(dim=1)
    for _ in range(count):
        place = int(distance.argmax())
        if chosen and not float(distance[place]) > 0:
            raise DataError(f"the mesh has {len(chosen)} distinct vertices, {count} keypoints were asked for")
        gaps = (points - points[place]).norm(dim=1)
        distance = gaps if not chosen else torch.minimum(distance, gaps)
        chosen.append(place)
    return points[chosen].clone()


def outermost(points: Tensor) -> Tensor:
    """Those of points (V, 3) that are farthest in some of 2,048 directions, for what depends on the outline alone."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(_DIRECTIONS, 3, generator=draw), dim=1)
    return points[torch.cat([(points @ part.T).argmax(0) for part in directions.split(256)]).unique()]


def diameter(points: Tensor) -> float:
    """The largest distance of two points (V, 3), to a share of a per mille."""
    outer = outermost(points)
    return float(torch.cdist(outer, outer, compute_mode="donot_use_mm_for_euclid_dist").max())


def read_points(path: str) -> Tensor:
    """(P, 3) of a CSV file with the columns x, y and z."""
    import csv

    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        points = torch.tensor([[float(row[axis]) for axis in "xyz"] for row in rows])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected a table with the columns x, y and z: {error!r}") from error
    if len(points) < 4 or not bool(points.isfinite().all()):
        raise DataError(f"{path} holds {len(points)} points: a pose needs at least 4, all finite")
    return points
