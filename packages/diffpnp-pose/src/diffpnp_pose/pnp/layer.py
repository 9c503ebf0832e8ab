"""`PnPLayer`: `solve_pnp` as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffpnp_pose.distortion import Distortion
from diffpnp_pose.pnp.result import PnPResult
from diffpnp_pose.pnp.robust import Huber, SampleConsensus
from diffpnp_pose.pnp.solve import Backward, Constraint, Init, solve_pnp


class PnPLayer(nn.Module):
    """Pose from predicted image points, for use at the end of a network.

    The object and the camera may be given once, as buffers, or with every call.

    Args:
        points_3d: object points, `(n, 3)`, or None to give them with every call.
        K: camera matrix, `(3, 3)`, or None to give it with every call.
        init: as in `solve_pnp`.
        robust: as in `solve_pnp`.
        backward: as in `solve_pnp`.
        constraint: as in `solve_pnp`.
        distortion: as in `solve_pnp`; it is no buffer, since calibrations are not trained weights.
    """

    def __init__(
        self,
        points_3d: Tensor | None = None,
        K: Tensor | None = None,
        *,
        init: Init = "auto",
        robust: Huber | SampleConsensus | None = None,
        backward: Backward = "exact",
        constraint: Constraint = "reprojection",
        distortion: Distortion | None = None,
    ) -> None:
        super().__init__()
        self.points_3d: Tensor | None
        self.K: Tensor | None
        self.register_buffer("points_3d", None if points_3d is None else torch.as_tensor(points_3d))
        self.register_buffer("K", None if K is None else torch.as_tensor(K))
        self.init: Init = init
        self.robust = robust
        self.backward: Backward = backward
        self.constraint: Constraint = constraint
        self.distortion = distortion

    def forward(
        self,
        points_2d: Tensor,
        points_3d: Tensor | None = None,
        K: Tensor | None = None,
        weights: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> PnPResult:
        """Solve for the poses of a batch.

        Args:
            points_2d: image points in pixels, `(..., n, 2)`.
            points_3d: object points, `(..., n, 3)`; the layer's own when None.
            K: camera matrices, `(..., 3, 3)`; the layer's own when None.
            weights: point weights, `(..., n)`.
            mask: which points are present, `(..., n)`.

        Returns:
            The result of `solve_pnp`.

        Raises:
            ValueError: points or camera were given neither here nor to the layer, or `solve_pnp` refuses them.
        """
        points_3d = self.points_3d if points_3d is None else points_3d
        K = self.K if K is None else K
        if points_3d is None or K is None:
            missing = "points_3d" if points_3d is None else "K"
            raise ValueError(f"{missing} was given neither to PnPLayer nor to this call")
        return solve_pnp(
            points_2d,
            points_3d,
            K,
            weights=weights,
            mask=mask,
            init=self.init,
            robust=self.robust,
            backward=self.backward,
            constraint=self.constraint,
            distortion=self.distortion,
        )

    def extra_repr(self) -> str:
        """Options, and the number of points if the layer owns them."""
        points = "" if self.points_3d is None else f"points={len(self.points_3d)}, "
        return (
            f"{points}init={self.init!r}, robust={self.robust}, backward={self.backward!r}, "
            f"constraint={self.constraint!r}"
        )
