"""Characters whose colour says the label in training and not in the test: RML against MAML, seed by seed."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from rml_meta.cli.class_split import ClassSplit
from rml_meta.cli.data import held_out_tasks
from rml_meta.cli.recipes import TrainConfig
from rml_meta.cli.scoring import accuracy_on
from rml_meta.environments import ColourEnvironments
from rml_meta.evaluation import mean_interval
from rml_meta.methods import FewShotMethod
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from benchmarks.common import data_root, save
from benchmarks.rml_meta._cells import cell, measured

QUESTION = "Where colour says the label in training but not in the test, does RML learn the characters, and MAML?"
LONG = True
SEEDS = (0, 1, 2, 3, 4)
FEWER = (0, 1, 2, 3)
BASE = TrainConfig.PRESETS["colour"].changed(test_episodes=300, progress=False)
MAPS = {"colour": "of each environment", "colour-shared": "shared"}
METHODS: dict[str, dict[str, Any]] = {
    "MAML": {"method": "maml"},
    "RML": {"method": "rml"},
    "RML, i = j too": {"method": "rml", "include_self": True},
    "RML, within environments (eq. 6 by the letter)": {
        "method": "rml",
        "pairing": "within_env",
        "class_alignment": "literal",
        "include_self": True,
    },
    "RML, IRMv1 weight 1": {"method": "rml", "penalty": "irmv1", "anneal_steps": 100},
    "RML, IRMv1 weight 10": {"method": "rml", "penalty": "irmv1", "penalty_weight": 10.0, "anneal_steps": 100},
    "RML, V-REx weight 1": {"method": "rml", "penalty": "vrex", "anneal_steps": 100},
    "RML, std weight 1": {"method": "rml", "penalty": "std", "anneal_steps": 100},
}
CELLS = [
    (method, look, seed)
    for seed in SEEDS
    for look in MAPS
    for method in METHODS
    if seed in FEWER or method in ("MAML", "RML")
]


class QueryShift:
    """Support images coloured as in training, query images of the same map as in the test."""

    def __init__(self, support: ColourEnvironments, query: ColourEnvironments, count: int) -> None:
        self.parts, self.count = (support, query), count

    def __len__(self) -> int:
        return len(self.parts[0])

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (E, M, 3, H, W), of which the first `count` of each environment are support images."""
        state = generator.get_state()
        shown = []
        for part in self.parts:
            generator.set_state(state)  # so that both draw one colour map
            shown.append(part(images, labels, generator))
        return torch.cat([shown[0][:, : self.count], shown[1][:, self.count :]], 1)


def query_only(config: TrainConfig, split: ClassSplit, method: FewShotMethod, runtime: Runtime) -> dict[str, Any]:
    """Accuracy where only the query images have lost the correlation."""
    tasks = held_out_tasks(config, split, "novel", runtime, correlations=config.environments.correlations)
    shared = config.environments.train == "colour-shared"
    support, query = (
        ColourEnvironments(p, shared_map=shared)
        for p in (config.environments.correlations, config.environments.test_correlations)
    )
    tasks.environments = QueryShift(support, query, config.ways * config.shots)
    return {"accuracy": accuracy_on(method, tasks, runtime).mean}


def config_of(method: str, look: str, seed: int) -> TrainConfig:
    """The settings of one cell."""
    return BASE.changed(environments=look, test_environments=look, seed=seed, **METHODS[method])


def run(method: str, look: str, seed: int) -> dict[str, Any]:
    """Accuracies in percent of one training."""
    config = config_of(method, look, seed)
    found = cell(config)
    return {
        "method": method,
        "map": MAPS[look],
        "seed": seed,
        "as trained": 100 * found["novel_as_trained"]["accuracy"],
        "shifted": 100 * found["novel"]["accuracy"],
        "query shifted": 100 * measured(config, "query_only", query_only)["accuracy"],
        "cpu_seconds": found["cpu_seconds"],
    }


def main(seeds: Sequence[int] = SEEDS, looks: Sequence[str] = tuple(MAPS)) -> None:
    """Run every cell that the JSON does not have, and write the table; remove the JSON to begin anew."""
    if data_root() is None:
        return
    path = pathlib.Path(__file__).parent / "results" / "colour.json"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []
    for method, look, seed in CELLS:
        known = any((c["method"], c["map"], c["seed"]) == (method, MAPS[look], seed) for c in cells)
        if seed in seeds and look in looks and not known:
            cells.append(run(method, look, seed))
            table(cells)


def table(cells: list[dict[str, Any]]) -> None:
    """Write what there is, each method beside MAML and RML of the same seeds."""
    rows = []
    for shown in MAPS.values():
        of_map = {name: _by_seed(cells, name, shown) for name in METHODS}
        for name, own in of_map.items():
            if own:
                row = {"colour map": shown, "method": name, "seeds": len(own)}
                rows.append(row | columns(own, of_map["MAML"], of_map["RML"]))
    note = (
        "accuracy (%) on novel Omniglot characters, 5 ways, 1 shot; gains are paired by seed, with the 95 % interval "
        "of Student's t over seeds; colour says the label with .9 and .8 in the two environments of training; "
        "shifted: .1 (a fifth would be no relation at all); 200 steps of 8 tasks"
    )
    save(__file__, QUESTION, rows, note=note, cells=cells)


def _by_seed(cells: list[dict[str, Any]], method: str, shown: str) -> dict[int, dict[str, Any]]:
    return {c["seed"]: c for c in cells if c["method"] == method and c["map"] == shown}


def columns(own: dict[int, dict[str, Any]], *others: dict[int, dict[str, Any]]) -> dict[str, str]:
    """Means over seeds, and gains over MAML and over RML of the same seeds."""
    names = ("as trained", "shifted", "query shifted")
    made = {name: f"{statistics.mean(c[name] for c in own.values()):.1f}" for name in names}
    for rival, other in zip(("MAML", "RML"), others, strict=True):
        for name in names[:2]:
            made[f"{name}, over {rival}"] = "" if own is other else _gain(own, other, name)
    return made


def _gain(own: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]], name: str) -> str:
    gains = torch.tensor([own[seed][name] - other[seed][name] for seed in sorted(own.keys() & other.keys())])
    if len(gains) < 2:
        return ""
    mean, half = mean_interval(gains)
    return f"{mean:+.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
