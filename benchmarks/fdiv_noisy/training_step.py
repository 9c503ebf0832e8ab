"""A whole training step with the in-batch product against cross-entropy and against algorithm 1 as published."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fdiv_noisy import FDivergenceLoss
from fdiv_noisy.networks import build
from torch import nn

from benchmarks.common import interleaved, save, spread

QUESTION = "What does a training step cost beside one with cross-entropy?"
CASES = [("cnn", 1, 28, 128), ("preact_resnet18", 3, 32, 16)]


def make_step(network: str, channels: int, size: int, batch: int, loss: nn.Module) -> Callable[[], None]:
    """A step on a batch, with two further batches where the loss is algorithm 1 as published."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(network, channels, size, 10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, peers = torch.randn(2, batch, channels, size, size, device=device)
    labels, peer_labels = torch.randint(10, (2, batch), device=device)
    external = isinstance(loss, FDivergenceLoss) and loss.product == "external"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        more = {"peer_logits": model(peers), "peer_targets": peer_labels} if external else {}
        loss(model(images), labels, **more).backward()
        optimizer.step()

    return step


def main() -> None:
    """Measure both networks and write the table."""
    torch.set_num_threads(1)
    losses = {
        "cross-entropy": nn.CrossEntropyLoss(),
        "tv, shift": FDivergenceLoss("tv"),
        "tv, exact": FDivergenceLoss("tv", product="exact"),
        "tv, algorithm 1 (external)": FDivergenceLoss("tv", product="external"),
    }
    rows = []
    for network, channels, size, batch in CASES:
        steps = {name: make_step(network, channels, size, batch, loss) for name, loss in losses.items()}
        times = interleaved(steps, repeats=60 if network == "cnn" else 20, warmup=3)
        medians = {name: spread(values)["median"] for name, values in times.items()}
        row: dict[str, object] = {"network": network, "batch": batch, "CE step (ms)": 1e3 * medians["cross-entropy"]}
        rows.append(row | {name: medians[name] / medians["cross-entropy"] for name in list(losses)[1:]} | {"aim": 1.1})
    save(__file__, QUESTION, rows, unit="ratio of medians to cross-entropy in the same run")


if __name__ == "__main__":
    main()
