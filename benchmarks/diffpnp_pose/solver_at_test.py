"""What the solver at test time makes of the same keypoints: the networks of `tables`, evaluated again."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.common import save
from benchmarks.diffpnp_pose.tables import DRONES, METHODS, SEEDS, cells

QUESTION = "How much do the tables change with the solver that turns keypoints into poses at test time?"
LONG = True
NOTE = """Means over seeds on 512 test images. `cv2 ITERATIVE` is the solver of the published code, without its random
consensus; `exact` is solve_pnp. fail15 is the percentage of rotations more than 15 degrees off."""
SHOWN = ("NPE", "AD", "ACC5", "ADD5", "Proj2", "fail15")


def main(workers: int = 2) -> None:
    """Write the table from the cells of `tables`."""
    found = cells(METHODS, SEEDS, workers)
    rows: list[dict[str, Any]] = []
    for drone in DRONES:
        for method in METHODS:
            tests = [found[drone, method, seed]["test"] for seed in SEEDS]
            for solver in ("exact", "epnp", "cv2 ITERATIVE"):
                values = {name: statistics.mean(test[solver][name] for test in tests) for name in SHOWN}
                rows.append({"drone": drone, "trained with": method, "solver at test": solver, **values})
    save(__file__, QUESTION, rows, note=NOTE)


if __name__ == "__main__":
    main()
