"""What `inspect` says of environments before any training, beside what RML was then found to gain over MAML."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import torch
from rml_meta import inspect_environments
from rml_meta.cli import class_split
from rml_meta.environments import PALETTE, ColourEnvironments, TransformEnvironments, colourise
from robustvision_core.data import EpisodeSampler
from robustvision_core.data.episodes.sampler import Environments
from robustvision_core.run import plots
from torch import Tensor

from benchmarks.common import data_root, save

QUESTION = "Does `inspect` tell, before training, where RML gains over MAML and where it does not?"
WAYS, IMAGES, TASKS, SEEDS = 5, 5, 100, (0, 1, 2)
RESULTS = pathlib.Path(__file__).parent / "results"
PICTURE = pathlib.Path(__file__).parents[2] / "docs" / "_static" / "rml_inspection.png"


class Drawn:
    """A mark drawn into every image, which says the label with the given probability of each environment.

    Args:
        draw: Images (M, C, H, W) and marks (M,) to images with the marks.
        shared: One map of labels to marks for all environments rather than one for each.
        fixed: The maps are those of all tasks, so that a mark is tied to the number of a class.
        correlations: Probability that a mark is that of the label, one an environment.
    """

    def __init__(
        self,
        draw: Callable[[Tensor, Tensor], Tensor],
        shared: bool,
        fixed: bool = False,
        correlations: tuple[float, ...] = (0.9, 0.8),
    ) -> None:
        self.draw, self.shared, self.fixed, self.correlations = draw, shared, fixed, correlations

    def __len__(self) -> int:
        return len(self.correlations)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (E, M, C, H, W) with their marks."""
        source = torch.Generator().manual_seed(0) if self.fixed else generator
        maps = [torch.randperm(WAYS, generator=source) for _ in self.correlations]
        shown = []
        for e, probability in enumerate(self.correlations):
            own = maps[0 if self.shared else e][labels[e]]
            other = (own + 1 + torch.randint(WAYS - 1, own.shape, generator=generator)) % WAYS
            kept = torch.rand(own.shape, generator=generator) < probability
            shown.append(self.draw(images[e].clone(), torch.where(kept, own, other)))
        return torch.stack(shown)


def frame(images: Tensor, marks: Tensor) -> Tensor:
    """A frame of two pixels in one of five greys."""
    inside = torch.zeros(images.shape[-2:], dtype=torch.bool)
    inside[2:-2, 2:-2] = True
    return torch.where(inside, images, (marks / (WAYS - 1))[:, None, None, None])


def tint(images: Tensor, marks: Tensor) -> Tensor:
    """One of five colours."""
    return colourise(images, torch.tensor(PALETTE)[marks])


def dot(images: Tensor, marks: Tensor) -> Tensor:
    """A white square of four pixels in one of five places of the top: the same brightness, contrast and edges."""
    for image, mark in zip(images, marks.tolist(), strict=True):
        image[..., 1:5, 1 + 5 * mark : 5 + 5 * mark] = 1.0
    return images


def top_row(images: Tensor) -> Tensor:
    """Brightness (*B, 7) of seven pieces of the top of images (*B, C, H, W)."""
    return images[..., :6, :].mean((-3, -2)).unflatten(-1, (7, -1)).mean(-1)


CASES: dict[str, tuple[Environments, int, Callable[[Tensor], Tensor] | None]] = {
    "colour, a map of each environment": (
        ColourEnvironments((0.9, 0.8)),
        3,
        None,
    ),
    "colour, one map": (ColourEnvironments((0.9, 0.8), shared_map=True), 3, None),
    "plain, and brightness and contrast changed": (
        TransformEnvironments(("identity", "jitter")),
        1,
        None,
    ),
    "grey of a frame, a map of each environment": (Drawn(frame, False), 1, None),
    "grey of a frame, one map": (Drawn(frame, True), 1, None),
    "place of a dot, a map of each environment": (Drawn(dot, False), 1, None),
    "place of a dot, one map": (Drawn(dot, True), 1, None),
    "grey of a frame, tied to the number of a class": (Drawn(frame, False, fixed=True), 1, None),
    "colour, tied to the number of a class": (Drawn(tint, False, fixed=True), 3, None),
    "plain, and turned by 90 degrees": (TransformEnvironments(("identity", "rotate90")), 1, None),
    "plain, and out of focus": (TransformEnvironments(("identity", "blur")), 1, None),
    "place of a dot, statistics of the top given": (Drawn(dot, False), 1, top_row),
}
RIGHT = (True, False, False, True, False, True, False, True, True, False, False, True)


def row(name: str, right: bool) -> dict[str, Any]:
    """What `inspect` says over the seeds, and the gain where it was measured."""
    environments, channels, statistics = CASES[name]
    base = class_split.with_channels(class_split.load_classes("omniglot", 28, str(data_root()))[0], channels)
    reports = []
    for seed in SEEDS:
        sampler = EpisodeSampler(
            base, WAYS, IMAGES, IMAGES, TASKS, batch_size=10, seed=seed, environments=environments, mean=0.0, std=1.0
        )
        reports.append(inspect_environments(sampler.epoch(0), statistics=statistics))
    said = {report.helps for report in reports}
    return {
        "environments": name,
        "own (%)": 100 * sum(r.within for r in reports) / len(reports),
        "others (%)": 100 * sum(r.across for r in reports) / len(reports),
        "says": " or ".join("helps" if one else "does not help" for one in sorted(said, reverse=True)),
        "right": "yes" if said == {right} else "**no**",
        "gain of RML over MAML": gain(name),
        "tables": [r.table.tolist() for r in reports],
    }


def gain(name: str) -> str:
    """The gain that was measured: of the colour test where the colours are shifted, of plain characters as they are."""
    looks = {"colour, a map of each environment": "of each environment", "colour, one map": "shared"}
    if name in looks:
        rows = json.loads((RESULTS / "colour.json").read_text(encoding="utf-8"))["rows"]
        found = next(r for r in rows if r["colour map"] == looks[name] and r["method"] == "RML")
        return found["shifted, over MAML"]
    if name.startswith("plain, and brightness"):
        cells = json.loads((RESULTS / "omniglot.json").read_text(encoding="utf-8"))["cells"]
        first = {c["method"]: c["novel"]["accuracy"] for c in reversed(cells)}  # those of 1 shot come first
        return f"{100 * (first['rml'] - first['maml']):+.1f} (one seed)"
    return "not measured"


def draw(tables: dict[str, list[Any]]) -> None:
    """The exchange of probes of every case, the seeds' mean."""
    drawn, axes = plots.figure(13, 5.2, nrows=2, ncols=6, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for place, (name, of_seeds) in zip(axes.flat, tables.items(), strict=False):
        table = torch.tensor(of_seeds).mean(0)
        place.set_axis_on()
        place.imshow(table, vmin=1 / WAYS, vmax=1, cmap="viridis")
        for i, j in itertools.product(range(len(table)), repeat=2):
            value = float(table[i, j])
            colour = "black" if value > 0.6 else "white"
            place.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=colour)
        place.set(xticks=[0, 1], yticks=[0, 1], xticklabels=["1", "2"], yticklabels=["1", "2"])
        place.set_title(name.replace(", ", ",\n"), fontsize=8)
    axes[0, 0].set(xlabel="tested in environment", ylabel="fitted in environment")
    plots.save(drawn, PICTURE)


def main() -> None:
    """Inspect every case and write the table."""
    torch.set_num_threads(1)
    if data_root() is None:
        return
    rows = [row(name, right) for name, right in zip(CASES, RIGHT, strict=True)]
    tables = {r["environments"]: r.pop("tables") for r in rows}
    note = (
        f"Omniglot at 28x28, {WAYS} ways, {IMAGES} images a class for the probe and for its test, {TASKS} tasks, seeds "
        "0 to 2; own: accuracy of the label from colour, brightness, contrast and edges in the probe's own environment "
        "(chance 20), others: in the other; marks and colours say the label with .9 and .8"
    )
    draw(tables)
    save(__file__, QUESTION, rows, note=note, tables=tables)


if __name__ == "__main__":
    main()
