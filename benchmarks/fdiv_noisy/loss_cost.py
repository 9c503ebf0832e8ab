"""Forward and backward of the losses against nn.CrossEntropyLoss."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from fdiv_noisy import FDivergenceLoss, ForwardCorrection, GCELoss, PeerLoss
from torch import Tensor, nn

from benchmarks.common import interleaved, save, spread
from benchmarks.memory import peak_mib

QUESTION = "What does a loss cost, forward and backward, beside nn.CrossEntropyLoss?"
SIZES = [(128, 10), (128, 100), (1024, 100), (1024, 1000)]
AIMS = {(128, 10): 1.6, (128, 100): 1.6, (1024, 100): 1.4, (1024, 1000): 1.2}


def published(logits: Tensor, targets: Tensor) -> Tensor:
    """The published way to the same number from one batch: two softmaxes, two NLL losses, a peer permutation."""
    peers = targets[torch.randperm(len(targets))]
    p = -nn.functional.nll_loss(logits.softmax(1), targets, reduction="none")
    q = -nn.functional.nll_loss(logits.softmax(1), peers, reduction="none")
    return -(0.5 * torch.tanh(p)).mean() + (0.5 * torch.tanh(q)).mean()


def operators(logits: Tensor, targets: Tensor) -> Tensor:
    """What TV cannot do without, as it stands: softmax, two probabilities a sample, tanh, difference and mean."""
    pair = logits.log_softmax(1).gather(1, torch.stack([targets, targets.roll(1)], 1)).exp()
    own, other = torch.tanh(pair).mul(0.5).unbind(1)
    return (other - own).mean()


def losses(k: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What is timed, for k classes."""
    return LOSSES | {"forward": ForwardCorrection(0.6 * torch.eye(k) + 0.4 / k)}


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "tv": FDivergenceLoss("tv"),
    "js": FDivergenceLoss("js"),
    "kl": FDivergenceLoss("kl"),
    "jeffrey": FDivergenceLoss("jeffrey"),
    "tv exact": FDivergenceLoss("tv", product="exact"),
    "tv published": published,
    "tv, operators alone": operators,
    "peer": PeerLoss(),
    "gce": GCELoss(),
}


def step(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Callable[[], None]:
    """One call of what is timed."""

    def call() -> None:
        logits.grad = None
        loss(logits, targets).backward()

    return call


MEMORY_SIZE = (4096, 1000)


def peak_memory(name: str) -> float:
    """MiB of one call, forward and backward, at `MEMORY_SIZE`, as of `peak_mib`."""
    b, k = MEMORY_SIZE
    made = "step(loss, torch.randn({b}, {k}, requires_grad=True), torch.randint({k}, ({b},)))"
    lines = f"from benchmarks.fdiv_noisy.loss_cost import losses, step\nloss = losses({k})[{name!r}]\n"
    return peak_mib(f"{lines}warm, call = {made.format(b=8, k=k)}, {made.format(b=b, k=k)}")


def main() -> None:
    """Measure every size and write the table."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for b, k in SIZES:
        logits = torch.randn(b, k, device=device, requires_grad=True)
        targets = torch.randint(k, (b,), device=device)
        calls = {name: step(loss, logits, targets) for name, loss in losses(k).items()}
        times = interleaved(calls, repeats=400 if b * k < 100_000 else 80, warmup=20, clock=time.process_time)
        medians = {name: spread(values)["median"] for name, values in times.items()}
        row: dict[str, object] = {"B, K": f"{b}, {k}", "CE (us)": 1e6 * medians["cross-entropy"]}
        row |= {name: medians[name] / medians["cross-entropy"] for name in calls if name != "cross-entropy"}
        rows.append(row | {"aim": AIMS[b, k]})
    memory = {name: round(peak_memory(name), 1) for name in losses(MEMORY_SIZE[1])}
    rows.append(
        {"B, K": f"peak memory at {MEMORY_SIZE[0]}, {MEMORY_SIZE[1]} (MiB)", "CE (us)": memory["cross-entropy"]}
    )
    rows[-1] |= {name: memory[name] for name in memory if name != "cross-entropy"} | {"aim": ""}
    unit = "ratio of medians of processor time to cross-entropy in the same run, one thread"
    save(__file__, QUESTION, rows, device=device, unit=unit, memory_mib=memory)


if __name__ == "__main__":
    main()
