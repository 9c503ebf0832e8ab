"""How far the label-free estimate of wrong pseudo-labels and the verdict can be believed, over a battery of shifts."""

from __future__ import annotations

import json
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pseudolabel_da import IncrementalPseudoLabeler, PeriodRecord, Verdict, diagnose
from pseudolabel_da.diagnosis.error import estimate_wrong
from pseudolabel_da.networks import SmallCNN
from pseudolabel_da.seeds import make_generator
from robustvision_core.data import ImageSet, load, load_domains
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import data_root, save

QUESTION = "Does the label-free estimate follow the share of wrong pseudo-labels, and is the verdict right?"
LONG = True
SEEDS = [0, 1, 2]
SIZE, SIDE = 800, 16
DONE = pathlib.Path("runs/benchmarks/pseudolabel_da/verdicts.jsonl")
Set = tuple[Tensor, Tensor]


def cut(data: ImageSet, size: int, seed: int, classes: Sequence[int] = range(10), imbalance: float = 1.0) -> Set:
    """`size` images of some classes as (N, 3, 16, 16) in [-1, 1], and labels; the first class the largest."""
    order = torch.randperm(len(data), generator=make_generator(seed, "cut"))
    labels = data.labels[order]
    weights = torch.zeros(int(data.labels.max()) + 1)
    for place, label in enumerate(classes):
        weights[label] = imbalance ** (-place / max(len(classes) - 1, 1))
    quota = (size * weights / weights.sum()).round().long()
    kept = torch.cat([order[labels == label][: int(quota[label])] for label in classes])
    images = F.interpolate(data.images[kept].float() / 127.5 - 1, (SIDE, SIDE), mode="area")
    return images.expand(-1, 3, -1, -1).contiguous(), data.labels[kept]


def noisy(amount: float) -> Callable[[Tensor], Tensor]:
    """A change: colour noise of that strength."""
    return lambda x: (x + amount * torch.randn(x.shape, generator=make_generator(0, "noise"))).clamp(-1, 1)


def sketch(images: Tensor) -> Tensor:
    """A change: edges, dark on white, as a drawing has them."""
    grey = images.mean(1, keepdim=True)
    dx = F.pad(grey[..., 1:] - grey[..., :-1], (0, 1))
    dy = F.pad(grey[..., 1:, :] - grey[..., :-1, :], (0, 0, 0, 1))
    return (1 - 3 * (dx.square() + dy.square()).sqrt()).clamp(-1, 1).expand(-1, 3, -1, -1).contiguous()


def cases(seed: int) -> Iterator[tuple[str, Callable[[], tuple[Set, Set]]]]:
    """Name of a shift, and a maker of source and target."""
    shift = load_domains("digits-shift", seed=seed)
    source = cut(shift.source_train, SIZE, seed)
    for amount in (0.0, 0.3, 0.7):
        images, labels = cut(shift.target_train, SIZE, seed)
        yield f"digits, noise {amount:g}", lambda i=images, y=labels, a=amount: (source, (noisy(a)(i), y))
    if data_root() is None:
        return
    for name in ("mnist-mnistm", "fashion-fashionm"):
        pair = load_domains(name, seed=seed)
        own, theirs = pair.source_train, pair.target_train
        yield name, lambda a=own, b=theirs: (cut(a, SIZE, seed), cut(b, SIZE, seed))
        few = lambda a=own, b=theirs: (cut(a, SIZE, seed), cut(b, SIZE // 2, seed, range(4)))  # noqa: E731  # bound here
        yield f"{name}, 4 of 10 classes", few
        uneven = lambda a=own, b=theirs: (cut(a, SIZE, seed), cut(b, SIZE, seed, range(10), 10.0))  # noqa: E731
        yield f"{name}, 10 to 1", uneven
    digits, clothes = load("mnist", "train"), load("fashion-mnist", "train")
    yield "digits to clothes", lambda: (cut(digits, SIZE, seed), cut(clothes, SIZE, seed))
    yield "clothes to digits", lambda: (cut(clothes, SIZE, seed), cut(digits, SIZE, seed))
    yield "digits, halves", lambda: (cut(digits, SIZE, seed), cut(digits, SIZE, seed + 50))
    photos = load("tiny-imagenet", "train")
    changes = {"negatives": torch.neg, "sketches": sketch, "noise 0.3": noisy(0.3)}
    for name, change in changes.items():
        images, labels = cut(photos, SIZE, seed + 50)
        yield f"photos to {name}", lambda i=images, y=labels, c=change: (cut(photos, SIZE, seed), (c(i), y))


def run(name: str, source: Set, target: Set, seed: int, augmented: bool) -> list[dict[str, Any]]:
    """One adaptation; what each period knew, and what was true."""
    torch.manual_seed(seed)
    network = SmallCNN(3, SIDE, 10).to(memory_format=torch.channels_last)
    options = {} if augmented else {"augment": None}
    labeler = IncrementalPseudoLabeler.balanced(network, seed=seed, lr=2e-3, **options)
    order = torch.randperm(len(source[1]), generator=make_generator(seed, "split"))
    x, y = source[0][order], source[1][order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labeler.pretrain((x[200:], y[200:]), None, epochs=12)
        result = labeler.fit((x[200:], y[200:]), (x[:200], y[:200]), target[0], epochs=10, target_labels=target[1])
    truth = torch.bincount(target[1], minlength=10) / len(target[1])
    return [
        {"case": name, "seed": seed, "augment": augmented, "true shares": truth.tolist()} | record.as_dict()
        for record in result.periods
    ]


def battery() -> list[dict[str, Any]]:
    """Every run, those that are done already read back."""
    torch.set_num_threads(1)
    DONE.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []
    done = {(row["case"], row["seed"], row["augment"]) for row in rows}
    for seed in SEEDS:
        for name, make in cases(seed):
            for augmented in (True, False) if seed == 0 else (True,):
                if (name, seed, augmented) in done:
                    continue
                found = run(name, *make(), seed, augmented)
                with DONE.open("a") as lines:
                    lines.writelines(json.dumps(row) + "\n" for row in found)
                rows += found
                print(name, seed, augmented, [round(r["wrong"] / max(r["selected"], 1), 2) for r in found], flush=True)
    return rows


def judged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the estimate and the verdict that today's code makes of their signals."""
    found, history = [], {}
    for row in rows:
        before = history.setdefault(key(row), [])
        own = {name: value for name, value in row.items() if name not in ("case", "seed", "augment", "true shares")}
        record = PeriodRecord.from_dict(own)
        estimate = estimate_wrong(record.signals)
        assert estimate is not None  # every run has validation data
        record.wrong_estimate, record.wrong_interval = estimate.share, [estimate.low, estimate.high]
        record.verdict = diagnose(record, before)
        before.append(record)
        found.append(row | record.as_dict())
    return found


def ranks(values: Tensor) -> Tensor:
    """Ranks, ties by their mean."""
    return torch.stack([((values < v).sum() + (values <= v).sum() - 1) / 2 for v in values])


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the estimates are worth over some periods."""
    truth = torch.tensor([row["wrong"] / max(row["selected"], 1) for row in rows])
    estimate = torch.tensor([row["wrong_estimate"] for row in rows])
    low, high = torch.tensor([row["wrong_interval"] for row in rows]).T
    healthy = torch.tensor([row["verdict"] == Verdict.HEALTHY.value for row in rows])
    good, bad = truth < 0.1, truth > 0.3
    return {
        "periods": len(rows),
        "rank correlation": float(torch.corrcoef(torch.stack([ranks(truth), ranks(estimate)]))[0, 1]),
        "mean absolute error": float((truth - estimate).abs().mean()),
        "in the interval (%)": 100 * float(((low <= truth) & (truth <= high)).float().mean()),
        "healthy below 10 % wrong (%)": 100 * float(healthy[good].float().mean()) if good.any() else None,
        "healthy above 30 % wrong": int((healthy & bad).sum()),
        "above 30 % wrong": int(bad.sum()),
    }


def main() -> None:
    """Run every case and write the table."""
    rows = judged(battery())
    last = [max((r for r in rows if key(r) == k), key=lambda r: r["period"]) for k in dict.fromkeys(map(key, rows))]
    table = [{"over": "all periods"} | figures(rows), {"over": "last periods"} | figures(last)]
    note = f"{len(last)} runs of the balanced recipe, {SIZE} images of {SIDE} pixels a domain, one small CNN"
    save(__file__, QUESTION, table, note=note, seeds=SEEDS, cells=[slim(row) for row in rows])


def slim(row: dict[str, Any]) -> dict[str, Any]:
    """What of a period the JSON keeps."""
    kept = ("case", "seed", "augment", "period", "selected", "wrong", "signals", "wrong_estimate", "verdict")
    return {name: row[name] for name in kept}


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Which run a row is of."""
    return row["case"], row["seed"], row["augment"]


if __name__ == "__main__":
    main()
