"""Table 4 of the paper, the networks, at the size of `tables`."""

from __future__ import annotations

from typing import Any

from benchmarks.common import save
from benchmarks.diffpnp_pose.tables import NOTE, cells, rows_of

QUESTION = "Which network finds the poses of rendered drones best, and which those of the small one?"
LONG = True
METHODS: dict[str, dict[str, Any]] = {
    "HRNet": {"loss": "lh"},
    "HigherHRNet": {"loss": "lh", "network": "higher_hrnet"},
    "Hourglass": {"loss": "lh", "network": "hourglass", "network_size": "tiny"},
}
SEEDS = (0,)


def main(workers: int = 2) -> None:
    """Run every cell and write the table."""
    found = cells(METHODS, SEEDS, workers)
    rows = rows_of(found, SEEDS, dict.fromkeys(METHODS, "4"))
    save(__file__, QUESTION, rows, note=NOTE, cells=list(found.values()))


if __name__ == "__main__":
    main()
