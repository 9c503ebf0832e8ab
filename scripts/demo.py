"""Show each package's main job on data that needs no download; `make demo`."""

from __future__ import annotations

import sys

from diffpnp_pose.cli import main as diffpnp_pose
from fdiv_noisy.cli import main as fdiv_noisy

DEMOS = {"fdiv-noisy": fdiv_noisy, "diffpnp-pose": diffpnp_pose}


def main() -> int:
    """Run every demo; the status is that of the first that fails."""
    for name, command in DEMOS.items():
        print(f"== {name}", flush=True)
        if status := command(["demo"]):
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
