"""The PnP solver, its gradients and its layer."""

from __future__ import annotations

from diffpnp_pose.pnp.layer import PnPLayer
from diffpnp_pose.pnp.result import PnPResult
from diffpnp_pose.pnp.robust import Huber, SampleConsensus
from diffpnp_pose.pnp.solve import solve_pnp

__all__ = ["Huber", "PnPLayer", "PnPResult", "SampleConsensus", "solve_pnp"]
