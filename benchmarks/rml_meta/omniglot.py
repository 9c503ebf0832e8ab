"""The nine methods on real handwritten characters, small enough for two cores."""

from __future__ import annotations

from typing import Any

from rml_meta.cli.recipes import METHODS, TrainConfig

from benchmarks.common import data_root, save
from benchmarks.rml_meta._cells import cell

QUESTION = "How well do the nine methods learn Omniglot's characters from 1 and 5 images?"
LONG = True
SHOTS = (1, 5)
BASE = TrainConfig.PRESETS["omniglot"].changed(
    hidden=32,
    tasks=4,
    epochs=20,
    lstm_steps=5,
    reptile_test_steps=10,
    test_queries=5,
    val_episodes=50,
    schedule="cosine",
    progress=False,
)
# the slow ones last
ORDER = ("protonet", "maml", "matchingnet", "relationnet", "rml", "baseline", "baseline++", "reptile", "metalstm")
# steps an epoch at 1 and 5 shots: some minutes of one core each
STEPS = {
    "protonet": (150, 100),
    "matchingnet": (150, 100),
    "relationnet": (150, 100),
    "maml": (200, 100),
    "rml": (200, 100),
    "baseline": (150, 150),
    "baseline++": (150, 150),
    "reptile": (75, 75),
    "metalstm": (20, 20),
}


def config_of(method: str, shots: int) -> TrainConfig:
    """The settings of one cell."""
    more: dict[str, Any] = {"schedule": "auto"} if method == "reptile" else {"lr": 3e-3}
    if method in ("protonet", "matchingnet"):  # cheap to compare: as many images a step, in one larger task
        more |= {"train_ways": 20, "tasks": 1}
    if method in ("maml", "rml") and shots == 5:
        more["test_inner_steps"] = TrainConfig.PRESETS["omniglot-5shot"].inner.test_steps
    return BASE.changed(method=method, shots=shots, steps=STEPS[method][SHOTS.index(shots)], **more)


def main(methods: tuple[str, ...] = ORDER, shots: tuple[int, ...] = SHOTS) -> None:
    """Run every cell and write the table."""
    if data_root() is None:
        return
    results = {(method, k): cell(config_of(method, k)) for k in shots for method in methods}
    table(results)


def table(results: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Write what there is."""
    rows = []
    for method in METHODS:
        row: dict[str, Any] = {"method": method}
        for k in SHOTS:
            found = results.get((method, k))
            row[f"{k}-shot (%)"] = "" if found is None else percent(found["novel"])
            row[f"{k}-shot steps"] = "" if found is None else BASE.epochs * STEPS[method][SHOTS.index(k)]
            row[f"{k}-shot cpu s"] = "" if found is None else round(found["cpu_seconds"]) or ""
        row["queries together"] = next((r["novel"]["transductive"] for (m, _), r in results.items() if m == method), "")
        rows.append(row)
    note = (
        "accuracy on 659 novel characters with its 95 % interval over 600 tasks of 5 ways and 5 queries a class, "
        "the same for every method; 804 base and 160 validation characters, no rotations as classes; Conv4 of 32 "
        "channels, 28x28; a step is 4 tasks, of protonet and matchingnet one task of 20 ways, of the baselines 64 "
        "images; maml and rml train on 1 inner step and take 3 in the test at 1 shot, 1 at 5 shots, as validation "
        "classes say; rml's environments are the images as they are and with jittered brightness and contrast; one "
        "seed; empty: not run"
    )
    save(__file__, QUESTION, rows, note=note, seeds=[0], cells=[*results.values()])


def percent(found: dict[str, Any]) -> str:
    """Accuracy and interval."""
    return f"{100 * found['accuracy']:.2f} ± {100 * found['interval']:.2f}"


if __name__ == "__main__":
    main()
