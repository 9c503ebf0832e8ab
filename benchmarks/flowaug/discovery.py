"""Figures 3b and 5: two free entries of the generator, of which a rotation needs one to be minus the other."""

from __future__ import annotations

from typing import Any

import torch
from flowaug.cli.recipes import TrainConfig
from flowaug.metrics import rotation_error

from benchmarks.common import mean_and_spread, save
from benchmarks.flowaug._cells import Cell, cells

QUESTION = "Does a flow over two free entries of the generator find that they must form rotations?"
LONG = True
SEEDS = [0, 1]
AUGMENTERS = ["flow", "instaaug"]


@torch.no_grad()
def result(cell: Cell, n: int = 200) -> dict[str, Any]:
    """Correlation of the entries and distance of the transforms to rotations, beside those of the uniform box."""
    generator = torch.Generator().manual_seed(cell.config.seed)
    space = cell.model.augmenter.space
    images = cell.sets.test.images[:200].float() / 255
    w = cell.model.augmenter.sample(images, n, generator)[0].flatten(0, 1)
    box = 2 * torch.rand(w.shape, generator=generator) - 1
    side = (images.shape[-2], images.shape[-1])
    found: dict[str, Any] = {"correlation": float(torch.corrcoef(w.T)[0, 1])}
    for name, sample in (("flow", w), ("box", box)):
        error = rotation_error(space.matrix(sample, side)[..., :2])  # pyright: ignore[reportAttributeAccessIssue]
        found[f"error_{name}"] = float(error.median())
        found[f"sum_{name}"] = float(sample.sum(-1).abs().mean())
    # the same, with as much rotation: the box shrunk to the flow's mean size
    shrunk = box * (w.norm(dim=-1).mean() / box.norm(dim=-1).mean())
    found["error_shrunk_box"] = float(rotation_error(space.matrix(shrunk, side)[..., :2]).median())  # pyright: ignore[reportAttributeAccessIssue]
    angles = (w[:, 1] - w[:, 0]) / 2
    found["turn_deviation"] = float(angles.rad2deg().std())
    return found | cell.summary()


def main() -> None:
    """Train every cell and write the table."""
    base = TrainConfig.PRESETS["discovery"].changed(device="cpu", progress=False)
    wanted = [(augmenter, seed) for augmenter in AUGMENTERS for seed in SEEDS]
    trained = cells([base.changed(augmenter=augmenter, seed=seed) for augmenter, seed in wanted])
    results = {names: result(one) for names, one in zip(wanted, trained, strict=True)}
    rows = []
    for augmenter in AUGMENTERS:
        found = [results[augmenter, seed] for seed in SEEDS]

        def over(key: str, found: list[dict[str, Any]] = found) -> str:
            return mean_and_spread([one[key] for one in found])

        rows.append(
            {
                "augmenter": augmenter,
                "correlation of a12, a21": over("correlation"),
                "|a12 + a21|": over("sum_flow"),
                "of the box": over("sum_box"),
                "relative distance to a rotation": over("error_flow"),
                "of the box ": over("error_box"),
                "of a box of the same size": over("error_shrunk_box"),
                "rotations, deviation (degrees)": over("turn_deviation"),
                "seconds": round(sum(one["seconds"] for one in found) / len(found)),
            }
        )
    note = "medians over 200 transforms of each of 200 test images; a rotation has correlation -1 and distance 0"
    save(__file__, QUESTION, rows, note=note, seeds=SEEDS, cells=list(results.values()))


if __name__ == "__main__":
    main()
