"""The backends of the inner loop against `higher` and a clone-and-adapt loop, in time and memory."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import higher
import torch
import torch.nn.functional as F
from rml_meta import MAML, Classifier, Episode, build_backbone
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.common import interleaved, save, spread

QUESTION = "What does a second-order meta-step cost in each backend, beside `higher` and a clone-and-adapt loop?"
STEPS = (1, 5, 20)
TASKS, WAYS, QUERIES, SIDE, LR = 4, 5, 15, 28, 0.01
NOTE = "4 tasks of 5 ways, 1 shot, 15 queries a class, 28x28, Conv4 of 32 channels with batch norm, float32"


def model(hidden: int = 32) -> nn.Module:
    """Conv4 with batch norm."""
    torch.manual_seed(0)
    return Classifier(build_backbone("conv4", 1, SIDE, hidden=hidden), WAYS)


def tasks() -> Episode:
    """One-shot tasks of noise."""
    torch.manual_seed(1)
    y = torch.arange(WAYS)
    return Episode(
        torch.randn(TASKS, WAYS, 1, SIDE, SIDE),
        y.expand(TASKS, -1),
        torch.randn(TASKS, WAYS * QUERIES, 1, SIDE, SIDE),
        y.repeat_interleave(QUERIES).expand(TASKS, -1),
    )


def by_backend(backend: Any, steps: int) -> Callable[[], Tensor]:
    """A meta-step of this package; gives the loss."""
    maml = MAML(model(), inner_lr=LR, inner_steps=steps, backend=backend)
    batch = tasks()

    def call() -> Tensor:
        maml.zero_grad(set_to_none=True)
        loss = maml.meta_loss(batch)
        loss.backward()
        return loss.detach()

    return call


def by_higher(steps: int) -> Callable[[], Tensor]:
    """The same with the library `higher`, used as its documentation does."""
    net, batch = model(), tasks()
    optimizer = torch.optim.SGD(net.parameters(), LR)

    def call() -> Tensor:
        net.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for sx, sy, qx, qy in zip(*batch[:4], strict=True):
            with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (fast, inner):
                for _ in range(steps):
                    inner.step(F.cross_entropy(fast(sx), sy))
                loss = F.cross_entropy(fast(qx), qy) / TASKS
                loss.backward()
            total = total + loss.detach()
        return total

    return call


def by_clone(steps: int) -> Callable[[], Tensor]:
    """The same by cloned parameters and updates that autograd follows, all tasks' losses summed before one backward."""
    net, batch = model(), tasks()

    def call() -> Tensor:
        net.zero_grad(set_to_none=True)
        losses = []
        for sx, sy, qx, qy in zip(*batch[:4], strict=True):
            params = {name: p.clone() for name, p in net.named_parameters()}
            buffers = copy.deepcopy(dict(net.named_buffers()))
            for _ in range(steps):
                loss = F.cross_entropy(functional_call(net, (params, buffers), (sx,)), sy)
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
                params = {name: p - LR * g for (name, p), g in zip(params.items(), grads, strict=True)}
            losses.append(F.cross_entropy(functional_call(net, (params, buffers), (qx,)), qy))
        loss = torch.stack(losses).mean()
        loss.backward()
        return loss.detach()

    return call


def calls(steps: int) -> dict[str, Callable[[], Tensor]]:
    """What is measured, by name."""
    return {
        "loop": by_backend("loop", steps),
        "grouped": by_backend("grouped", steps),
        "vmap": by_backend("vmap", steps),
        "recompute": by_backend("recompute", steps),
        "own higher": by_backend("higher", steps),
        "higher": by_higher(steps),
        "clone and adapt": by_clone(steps),
    }


def peak_mib(name: str, steps: int) -> float:
    """Growth of the largest resident memory over one meta-step after the first, in a process of its own."""
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import resource, torch\n"
        "torch.set_num_threads(1)\n"
        "from benchmarks.rml_meta.backends import calls, reset_peak, peak\n"
        f"call = calls({steps})[{name!r}]\n"
        "reset_peak(); before = peak(); call(); print((peak() - before) / 1024)\n"
    )
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def reset_peak() -> None:
    """Start the kernel's record of the largest resident memory anew."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak() -> int:
    """Largest resident memory in KiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def main() -> None:
    """Measure every backend and write the table."""
    torch.set_num_threads(1)
    rows, seconds = [], {}
    for steps in STEPS:
        made = calls(steps)
        losses = {name: float(call()) for name, call in made.items()}
        times = interleaved(made, repeats=max(15 // steps, 3), warmup=1)
        medians = {name: spread(values)["median"] for name, values in times.items()}
        seconds[steps] = {name: spread(values) for name, values in times.items()}
        row: dict[str, Any] = {"inner steps": steps, "higher (ms)": round(1e3 * medians["higher"], 1)}
        row |= {f"{name} / higher": medians[name] / medians["higher"] for name in made if name != "higher"}
        row |= {f"{name} (MiB)": round(peak_mib(name, steps)) for name in ("loop", "grouped", "recompute", "higher")}
        row["loop / grouped"] = medians["loop"] / medians["grouped"]
        row["losses differ by"] = max(losses.values()) - min(losses.values())
        rows.append(row)
    memory = {steps: peak_mib("recompute", steps) for steps in (2, 20)}
    save(
        __file__,
        QUESTION,
        rows,
        note=NOTE,
        seconds=seconds,
        recompute_mib=memory,
        recompute_20_over_2=memory[20] / memory[2],
        aims="loop / grouped >= 1.3 from 5 steps on, below higher and clone and adapt; loop (MiB) below higher's",
    )


if __name__ == "__main__":
    main()
