"""Differentiable PnP layers and keypoint-based 6-DoF pose models.

Everything below is imported on first use, and imports torch only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffpnp_pose.epnp_backends import EPnPResult, epnp
    from diffpnp_pose.geometry import (
        left_jacobian,
        left_jacobian_inverse,
        project,
        project_pose,
        rotation_angle,
        skew,
        so3_exp,
        so3_log,
        transform,
    )
    from diffpnp_pose.heatmaps import centre_of_mass, decode, gaussian_targets, spatial_softmax
    from diffpnp_pose.losses import (
        MixtureLoss,
        heatmap_loss,
        monte_carlo_pose_loss,
        pose_loss,
        projection_loss,
        regulariser,
        reproject,
    )
    from diffpnp_pose.metrics import (
        PoseMetrics,
        add_error,
        add_s_error,
        angular_distance,
        area_under_curve,
        model_diagonal,
        projection_error,
        translation_error,
    )
    from diffpnp_pose.networks import HigherHRNet, HRNet, StackedHourglass, higher_hrnet, hourglass, hrnet
    from diffpnp_pose.pnp import Huber, PnPLayer, PnPResult, SampleConsensus, solve_pnp

__version__ = "0.1.0"

_ROOMS = {
    "epnp_backends": ["EPnPResult", "epnp"],
    "geometry": [
        "left_jacobian",
        "left_jacobian_inverse",
        "project",
        "project_pose",
        "rotation_angle",
        "skew",
        "so3_exp",
        "so3_log",
        "transform",
    ],
    "heatmaps": ["centre_of_mass", "decode", "gaussian_targets", "spatial_softmax"],
    "losses": [
        "MixtureLoss",
        "heatmap_loss",
        "monte_carlo_pose_loss",
        "pose_loss",
        "projection_loss",
        "regulariser",
        "reproject",
    ],
    "metrics": [
        "PoseMetrics",
        "add_error",
        "add_s_error",
        "angular_distance",
        "area_under_curve",
        "model_diagonal",
        "projection_error",
        "translation_error",
    ],
    "networks": ["HigherHRNet", "HRNet", "StackedHourglass", "higher_hrnet", "hourglass", "hrnet"],
    "pnp": ["Huber", "PnPLayer", "PnPResult", "SampleConsensus", "solve_pnp"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "EPnPResult",
    "HRNet",
    "HigherHRNet",
    "Huber",
    "MixtureLoss",
    "PnPLayer",
    "PnPResult",
    "PoseMetrics",
    "SampleConsensus",
    "StackedHourglass",
    "add_error",
    "add_s_error",
    "angular_distance",
    "area_under_curve",
    "centre_of_mass",
    "decode",
    "epnp",
    "gaussian_targets",
    "heatmap_loss",
    "higher_hrnet",
    "hourglass",
    "hrnet",
    "left_jacobian",
    "left_jacobian_inverse",
    "model_diagonal",
    "monte_carlo_pose_loss",
    "pose_loss",
    "project",
    "project_pose",
    "projection_error",
    "projection_loss",
    "regulariser",
    "reproject",
    "rotation_angle",
    "skew",
    "so3_exp",
    "so3_log",
    "solve_pnp",
    "spatial_softmax",
    "transform",
    "translation_error",
]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"diffpnp_pose.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'diffpnp_pose' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
