"""Table 3 and 4 of Wei and Liu 2021 at a size that two cores allow: 10,000 MNIST images, published labels and CNN."""

from __future__ import annotations

from dataclasses import replace

from fdiv_noisy.cli.recipes import TrainConfig

from benchmarks.common import data_root, mean_and_spread, save
from benchmarks.fdiv_noisy._cells import run_cells

QUESTION = "Which loss learns from 10,000 MNIST images with the published wrong labels?"
LONG = True
NOISES = ["r0_2", "r0_4", "r0_6"]
SEEDS = [0, 1]
METHODS = {
    "CE": {"loss": "ce"},
    "GCE": {"loss": "gce"},
    "Peer": {"loss": "peer"},
    "forward, T estimated": {"loss": "forward", "correction": "estimate", "warmup": 1},
    "TV": {"loss": "tv"},
    "JS": {"loss": "js"},
    "KL": {"loss": "kl"},
    "Pearson": {"loss": "pearson"},
    "TV, 1 epoch CE first": {"loss": "tv", "warmup": 1},
    "TV corrected, T estimated": {"loss": "tv", "correction": "estimate", "warmup": 1},
    "KL corrected, T estimated": {"loss": "kl", "correction": "estimate", "warmup": 1},
    "auto": {"loss": "auto"},
}
BASE = replace(TrainConfig.PRESETS["mnist"], train_size=10_000, epochs=20, progress=False)


def main() -> None:
    """Run every cell and write the table."""
    if data_root() is None:
        return
    cells = [(method, noise, seed) for noise in NOISES for method in METHODS for seed in SEEDS]
    configs = [replace(BASE, noise=f"published:{noise}", seed=seed, **METHODS[method]) for method, noise, seed in cells]
    results = dict(zip(cells, run_cells(configs), strict=True))
    rows = []
    for method in METHODS:
        row = {"method": method}
        for noise in NOISES:
            found = [results[method, noise, seed] for seed in SEEDS]
            wrong = 100 * found[0]["wrong_labels"]
            row[f"{noise} ({wrong:.1f} % wrong)"] = mean_and_spread([100 * cell["accuracy"] for cell in found])
            row[f"{noise} dead classes"] = "/".join(str(len(cell["dead_classes"])) for cell in found)
        rows.append(row)
    note = "clean test accuracy (%) at the last of 20 epochs, mean and standard deviation over seeds"
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=[{**r, "found": None} for r in results.values()])


if __name__ == "__main__":
    main()
