"""Metrics of 6-DoF object poses.

Every metric is computed per sample and averaged over samples (not over batches, where a short last batch would weigh
too much). A pose is correct strictly under a threshold. An item whose prediction is not valid should still be counted:
its placeholder pose fails every threshold.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffpnp_pose.geometry.matrices import product
from diffpnp_pose.geometry.projection import project, transform
from diffpnp_pose.geometry.quaternions import rotation_angle


def translation_error(t: Tensor, t_true: Tensor) -> Tensor:
    """Normalised position error (NPE), `|t - t*| / |t*|`, for translations `(..., 3)`; returns `(...)`."""
    return (t - t_true).norm(dim=-1) / t_true.norm(dim=-1)


def angular_distance(R: Tensor, R_true: Tensor) -> Tensor:
    """Angle between rotations `(..., 3, 3)` in radians (AD), exact near 0 and pi; returns `(...)`."""
    return rotation_angle(product(R, R_true.mT))


def add_error(R: Tensor, t: Tensor, R_true: Tensor, t_true: Tensor, vertices: Tensor) -> Tensor:
    """ADD: mean distance of the model's vertices under two poses.

    Args:
        R: rotations, `(..., 3, 3)`.
        t: translations, `(..., 3)`.
        R_true: true rotations.
        t_true: true translations.
        vertices: model points, `(V, 3)` or `(..., V, 3)`.

    Returns:
        Distances in the model's unit, `(...)`.
    """
    return (transform(vertices, R, t) - transform(vertices, R_true, t_true)).norm(dim=-1).mean(-1)


def add_s_error(R: Tensor, t: Tensor, R_true: Tensor, t_true: Tensor, vertices: Tensor) -> Tensor:
    """ADD-S, for symmetric objects: mean distance to the nearest vertex under the other pose.

    The arguments are those of `add_error`; memory grows with the square of the number of vertices.

    Returns:
        Distances in the model's unit, `(...)`.
    """
    true, moved = transform(vertices, R_true, t_true), transform(vertices, R, t)
    return torch.cdist(true, moved, compute_mode="donot_use_mm_for_euclid_dist").amin(-1).mean(-1)


def projection_error(R: Tensor, t: Tensor, R_true: Tensor, t_true: Tensor, points: Tensor, K: Tensor) -> Tensor:
    """Mean distance in pixels of points projected with two poses.

    The paper's text says keypoints, its configuration mesh vertices: give whichever as `points`, `(..., n, 3)`.

    Returns:
        Distances in pixels, `(...)`.
    """
    return (project(points, R, t, K) - project(points, R_true, t_true, K)).norm(dim=-1).mean(-1)


def area_under_curve(errors: Tensor, limit: float) -> Tensor:
    """Area under the curve of accuracy against threshold up to a limit, exact for the samples' step function.

    Args:
        errors: one error per sample, `(N,)`.
        limit: largest threshold (0.1 m is usual for ADD).

    Returns:
        Area in `[0, 1]`, a scalar.
    """
    return (1 - errors / limit).clamp_min(0).nan_to_num(nan=0.0).mean()


def model_diagonal(vertices: Tensor) -> Tensor:
    """Diagonal of the axis-aligned box around vertices `(..., V, 3)`; returns `(...)`."""
    return (vertices.amax(-2) - vertices.amin(-2)).norm(dim=-1)


class PoseMetrics:
    """Collects poses batch by batch and averages over all samples at the end.

    Args:
        vertices: model points in metres, `(V, 3)`.
        diagonal: length that ADD thresholds are fractions of, in metres; the vertices' box when None. The published
            tables use 0.354 for the M2ED and 0.219485 for the Tello.
        keypoints: points for the projection error with `projection="keypoints"`, `(n, 3)`.
        projection: whether the projection error is over mesh "vertices" (as published) or "keypoints".
        unit_per_cm: model units in one centimetre: 0.01 for metres, 10 for millimetres.
        symmetric: also compute ADD-S, whose time and memory per sample grow with the square of the vertices' number.

    Raises:
        ValueError: keypoints are missing or vertices have the wrong shape.
    """

    def __init__(
        self,
        vertices: Tensor,
        *,
        diagonal: float | None = None,
        keypoints: Tensor | None = None,
        projection: Literal["vertices", "keypoints"] = "vertices",
        unit_per_cm: float = 0.01,
        symmetric: bool = False,
    ) -> None:
        if vertices.dim() != 2 or vertices.shape[-1] != 3:
            raise ValueError(f"vertices must have shape (V, 3), got {tuple(vertices.shape)}")
        if projection not in ("vertices", "keypoints"):
            raise ValueError(f'projection must be "vertices" or "keypoints", got {projection!r}')
        if projection == "keypoints" and keypoints is None:
            raise ValueError('projection="keypoints" needs keypoints (n, 3)')
        self.vertices = vertices
        self.diagonal = float(model_diagonal(vertices)) if diagonal is None else diagonal
        self.points = keypoints if projection == "keypoints" and keypoints is not None else vertices
        self.unit_per_cm = unit_per_cm
        self.symmetric = symmetric
        self._batches: list[Tensor] = []

    @torch.no_grad()
    def update(self, R: Tensor, t: Tensor, R_true: Tensor, t_true: Tensor, K: Tensor) -> None:
        """Add a batch.

        Args:
            R: predicted rotations, `(B, 3, 3)`.
            t: predicted translations, `(B, 3)`.
            R_true: true rotations, `(B, 3, 3)`.
            t_true: true translations, `(B, 3)`.
            K: camera matrices, `(3, 3)` or `(B, 3, 3)`.
        """
        vertices, points = self.vertices.to(R), self.points.to(R)
        rows = [
            translation_error(t, t_true),
            angular_distance(R, R_true),
            (t - t_true).norm(dim=-1) / self.unit_per_cm,
            add_error(R, t, R_true, t_true, vertices),
            projection_error(R, t, R_true, t_true, points, K.to(R)),
        ]
        if self.symmetric:
            rows.append(add_s_error(R, t, R_true, t_true, vertices))
        self._batches.append(torch.stack(rows).cpu().double())

    def compute(self) -> dict[str, float]:
        """The averages over all samples seen.

        Returns:
            `NPE` and `AD` (radians), lower is better; `ACC2`, `ACC5` (angle under k degrees and position within k cm),
            `ADD2`, `ADD5`, `ADD10` (under k % of the diagonal), `Proj2`, `Proj5` (under k pixels) in percent; `AUC` (of
            ADD up to a tenth of the diagonal) and, where `symmetric` asks for it, `ADD-S5` in percent; medians of NPE
            and AD; `fail15`, the percentage of rotations more than 15 degrees off; and the number of `samples`.

        Raises:
            ValueError: nothing was added.
        """
        if not self._batches:
            raise ValueError("no batch was added: call update before compute")
        npe, ad, cm, add, proj, *add_s = torch.cat(self._batches, 1)
        degrees = torch.rad2deg(ad)
        values = {"NPE": npe.mean(), "AD": ad.mean()}
        for k in (2, 5):
            values[f"ACC{k}"] = 100 * ((degrees < k) & (cm < k)).double().mean()
        for k in (2, 5, 10):
            values[f"ADD{k}"] = 100 * (add < k / 100 * self.diagonal).double().mean()
        for k in (2, 5):
            values[f"Proj{k}"] = 100 * (proj < k).double().mean()
        if add_s:
            values["ADD-S5"] = 100 * (add_s[0] < 0.05 * self.diagonal).double().mean()
        values["AUC"] = 100 * area_under_curve(add, 0.1 * self.diagonal)
        values |= {"NPE_median": npe.quantile(0.5), "AD_median": ad.quantile(0.5)}
        values["fail15"] = 100 * (~(degrees <= 15)).double().mean()
        return {name: float(value) for name, value in values.items()} | {"samples": npe.numel()}
