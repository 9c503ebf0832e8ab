"""Networks that predict keypoint heat-maps: each gives a list of logits and says which of them poses are read from."""

from __future__ import annotations

from diffpnp_pose.networks.higher_hrnet import HigherHRNet, aggregate, higher_hrnet
from diffpnp_pose.networks.hourglass import HOURGLASS_SIZES, HourglassSize, StackedHourglass, hourglass
from diffpnp_pose.networks.hrnet import HRNET_SIZES, HRNet, HRNetSize, hrnet

__all__ = [
    "HOURGLASS_SIZES",
    "HRNET_SIZES",
    "HRNet",
    "HRNetSize",
    "HigherHRNet",
    "HourglassSize",
    "StackedHourglass",
    "aggregate",
    "higher_hrnet",
    "hourglass",
    "hrnet",
]
