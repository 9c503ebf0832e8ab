"""Forward and backward of the losses against nn.CrossEntropyLoss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fdiv_noisy import FDivergenceLoss, GCELoss, PeerLoss
from torch import Tensor, nn

from benchmarks.common import interleaved, save, spread

QUESTION = "What does a loss cost, forward and backward, beside nn.CrossEntropyLoss?"
SIZES = [(128, 10), (128, 100), (1024, 100), (1024, 1000)]
AIMS = {(128, 10): 2.0, (128, 100): 2.0, (1024, 100): 1.5, (1024, 1000): 1.2}


def published(logits: Tensor, targets: Tensor) -> Tensor:
    """The published way to the same number from one batch: two softmaxes, two NLL losses, a peer permutation."""
    peers = targets[torch.randperm(len(targets))]
    p = -nn.functional.nll_loss(logits.softmax(1), targets, reduction="none")
    q = -nn.functional.nll_loss(logits.softmax(1), peers, reduction="none")
    return -(0.5 * torch.tanh(p)).mean() + (0.5 * torch.tanh(q)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "tv": FDivergenceLoss("tv"),
    "js": FDivergenceLoss("js"),
    "kl": FDivergenceLoss("kl"),
    "jeffrey": FDivergenceLoss("jeffrey"),
    "tv exact": FDivergenceLoss("tv", product="exact"),
    "tv published": published,
    "peer": PeerLoss(),
    "gce": GCELoss(),
}


def step(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Callable[[], None]:
    """One call of what is timed."""

    def call() -> None:
        logits.grad = None
        loss(logits, targets).backward()

    return call


def main() -> None:
    """Measure every size and write the table."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for b, k in SIZES:
        logits = torch.randn(b, k, device=device, requires_grad=True)
        targets = torch.randint(k, (b,), device=device)
        calls = {name: step(loss, logits, targets) for name, loss in LOSSES.items()}
        times = interleaved(calls, repeats=1000 if b * k < 100_000 else 200, warmup=20)
        medians = {name: spread(values)["median"] for name, values in times.items()}
        row: dict[str, object] = {"B, K": f"{b}, {k}", "CE (us)": 1e6 * medians["cross-entropy"]}
        row |= {name: medians[name] / medians["cross-entropy"] for name in LOSSES if name != "cross-entropy"}
        rows.append(row | {"aim": AIMS[b, k]})
    save(__file__, QUESTION, rows, device=device, unit="ratio of medians to cross-entropy in the same run")


if __name__ == "__main__":
    main()
