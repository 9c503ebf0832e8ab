"""The backends of the inner loop against `higher` and a clone-and-adapt loop, in time and memory."""

from __future__ import annotations

import copy
import json
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import higher
import torch
import torch.nn.functional as F
from rml_meta import MAML, Classifier, Episode, build_backbone
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.common import interleaved, save, spread
from benchmarks.memory import peak_mib

QUESTION = "What does a second-order meta-step cost in each backend, beside `higher` and a clone-and-adapt loop?"
TASKS, WAYS, SIDE, LR = 4, 5, 28, 0.01
NOTE = (
    "4 tasks of 5 ways, 1 shot, 28x28, float32; 15 queries a class and 32 channels where no other number is "
    "named; wider ones have 5 queries a class, ResNet-10 of up to 512 channels 3; process-CPU time, interleaved "
    "medians, one thread"
)

AIMS = "loop / grouped >= 1.3 from 5 steps on, below higher and clone and adapt; loop (MiB) below higher's"


@dataclass(frozen=True)
class Setting:
    """Network, queries a class, numbers of inner steps, competitors left out, whether memory is measured, channels."""

    network: str
    queries: int
    steps: tuple[int, ...]
    left_out: tuple[str, ...] = ()
    memory: bool = False
    hidden: int = 32


SETTINGS = {
    "Conv4": Setting("conv4", 15, (1, 5, 20), memory=True),
    "Conv6": Setting("conv6", 15, (1, 5, 20), ("vmap", "recompute", "own higher")),
    "Conv4, 64 channels": Setting("conv4", 5, (5,), ("vmap", "recompute", "own higher"), hidden=64),
    "Conv4, 128 channels": Setting("conv4", 5, (5,), ("vmap", "recompute", "own higher"), hidden=128),
    "ResNet-10": Setting("resnet10", 3, (1, 5), ("vmap", "recompute", "own higher")),
}


def model(setting: Setting = SETTINGS["Conv4"]) -> nn.Module:
    """A network with batch norm."""
    torch.manual_seed(0)
    options = {"hidden": setting.hidden} if setting.network.startswith("conv") else {}
    return Classifier(build_backbone(setting.network, 1, SIDE, **options), WAYS)


def tasks(queries: int = 15) -> Episode:
    """One-shot tasks of noise."""
    torch.manual_seed(1)
    y = torch.arange(WAYS)
    return Episode(
        torch.randn(TASKS, WAYS, 1, SIDE, SIDE),
        y.expand(TASKS, -1),
        torch.randn(TASKS, WAYS * queries, 1, SIDE, SIDE),
        y.repeat_interleave(queries).expand(TASKS, -1),
    )


def by_backend(setting: Setting, backend: Any, steps: int) -> Callable[[], Tensor]:
    """A meta-step of this package; gives the loss."""
    maml = MAML(model(setting), inner_lr=LR, inner_steps=steps, backend=backend)
    batch = tasks(setting.queries)

    def call() -> Tensor:
        maml.zero_grad(set_to_none=True)
        loss = maml.meta_loss(batch)
        loss.backward()
        return loss.detach()

    return call


def by_higher(setting: Setting, steps: int) -> Callable[[], Tensor]:
    """The same with the library `higher`, used as its documentation does."""
    net, batch = model(setting), tasks(setting.queries)
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


def by_clone(setting: Setting, steps: int) -> Callable[[], Tensor]:
    """The same by cloned parameters and updates that autograd follows, all tasks' losses summed before one backward."""
    net, batch = model(setting), tasks(setting.queries)

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


OWN = {"loop": "loop", "grouped": "grouped", "vmap": "vmap", "recompute": "recompute", "own higher": "higher"}


def calls(setting: Setting, steps: int) -> dict[str, Callable[[], Tensor]]:
    """What is measured, by name."""
    made = {name: by_backend(setting, backend, steps) for name, backend in OWN.items() if name not in setting.left_out}
    return made | {"higher": by_higher(setting, steps), "clone and adapt": by_clone(setting, steps)}


def peak_of(network: str, name: str, steps: int) -> float:
    """MiB of one meta-step after the first, as of `peak_mib`."""
    call = f"calls(SETTINGS[{network!r}], {steps})[{name!r}]"
    return peak_mib(f"from benchmarks.rml_meta.backends import *\nwarm = call = {call}")


def measure(network: str, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the table, and the seconds behind it."""
    setting = SETTINGS[network]
    made = calls(setting, steps)
    losses = {name: float(call()) for name, call in made.items()}
    times = interleaved(made, repeats=max(9 // steps, 3), warmup=1, clock=time.process_time)
    seconds = {name: spread(values) for name, values in times.items()}
    medians = {name: value["median"] for name, value in seconds.items()}
    row: dict[str, Any] = {"network": network, "inner steps": steps, "higher (ms)": round(1e3 * medians["higher"], 1)}
    row |= {f"{name} / higher": shown(medians, name) for name in (*OWN, "clone and adapt") if name != "higher"}
    row["loop / grouped"] = medians["loop"] / medians["grouped"]
    memory = ("loop", "grouped", "recompute", "higher", "clone and adapt")
    row |= {f"{name} (MiB)": round(peak_of(network, name, steps)) if setting.memory else "" for name in memory}
    row["losses differ by"] = max(losses.values()) - min(losses.values())
    return row, seconds


def shown(medians: dict[str, float], name: str) -> float | str:
    """The ratio to `higher`, empty where it was not measured."""
    return medians[name] / medians["higher"] if name in medians else ""


def main(*only: tuple[str, int]) -> None:
    """Measure every backend and write the table, row by row; with `only`, those rows beside the ones of the JSON."""
    torch.set_num_threads(1)
    path = pathlib.Path(__file__).parent / "results" / "backends.json"
    held = json.loads(path.read_text(encoding="utf-8")) if only and path.exists() else {"rows": [], "seconds": {}}
    found = {(row["network"], row["inner steps"]): row for row in held["rows"]}
    seconds = held["seconds"]
    every = [(network, steps) for network, setting in SETTINGS.items() for steps in setting.steps]
    for network, steps in only or every:
        found[network, steps], seconds[f"{network}, {steps}"] = measure(network, steps)
        save(__file__, QUESTION, [found[one] for one in every if one in found], note=NOTE, seconds=seconds, aims=AIMS)


if __name__ == "__main__":
    main()
