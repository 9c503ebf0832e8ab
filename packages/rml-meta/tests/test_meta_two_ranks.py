from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from rml_meta import MAML, RML, Episode, MetaLSTM, Reptile
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def episodes(*leading: int) -> Episode:
    x = torch.randn(*leading, 21, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (torch.arange(21) % 3).expand(*leading, 21)
    return Episode(x[..., :6, :], y[..., :6], x[..., 6:, :], y[..., 6:])


def rank_gradients(runtime: Runtime, kind: str) -> list[Tensor]:
    """Gradients of one step on this process's half of a batch of four groups of two environments."""
    make: dict[str, Callable[[], nn.Module]] = {
        "second order": lambda: RML(network(), 0.1, 2),
        "recompute": lambda: RML(network(), 0.1, 2, backend="recompute"),
        "rates": lambda: MAML(network(), 0.1, 2, learn_lr="per-step", per_step_norm=True),
    }
    for penalty in ("irmv1", "vrex", "std"):
        options = {"penalty": penalty, "penalty_weight": 3.0}
        make[penalty] = functools.partial(RML, network(), 0.1, 2, **options)
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    make |= {
        "reptile": lambda: Reptile(network(), 2, inner_batch=None, inner_optimizer=sgd),
        "lstm": lambda: MetaLSTM(network(), 2).double(),
    }
    method = make[kind]()
    wrapped = runtime.wrap(method)
    part = 4 // runtime.world_size
    rows = slice(runtime.rank * part, (runtime.rank + 1) * part)
    wrapped(Episode(*(v[rows] for v in episodes(4, 2)[:4]))).backward()  # type: ignore[index]
    return [p.grad for p in method.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", ["second order", "recompute", "rates", "irmv1", "vrex", "std", "reptile", "lstm"])
def test_two_processes_give_one_process_gradients(two_ranks: Callable, kind: str) -> None:
    expected = rank_gradients(Runtime(torch.device("cpu")), kind)
    assert expected
    for rank in two_ranks(rank_gradients, kind):
        for actual, reference in zip(rank, expected, strict=True):
            torch.testing.assert_close(actual, reference, rtol=1e-9, atol=1e-12)
