"""Devices, seeds, reductions."""

from __future__ import annotations

import pytest
import torch
from robustvision_core.errors import UserError
from robustvision_core.run.metrics import accuracy, confusion_matrix, predict, recalls
from robustvision_core.run.runtime import Runtime, channels_last, derive_seed, to_device, unwrap
from torch import nn


def test_one_process_is_the_default() -> None:
    with Runtime.session("cpu", seed=4) as runtime:
        assert (runtime.rank, runtime.world_size, runtime.is_main) == (0, 1, True)
        module = nn.Linear(2, 2)
        assert runtime.wrap(module) is module
        assert unwrap(module) is module
        assert torch.equal(runtime.all_reduce_mean(torch.tensor(3.0)), torch.tensor(3.0))
        assert torch.initial_seed() == 4


def test_generators_depend_on_seed_and_name_alone() -> None:
    first, second = Runtime(torch.device("cpu"), seed=1), Runtime(torch.device("cpu"), seed=1)
    second.generator("other")
    assert torch.equal(torch.rand(3, generator=first.generator("a")), torch.rand(3, generator=second.generator("a")))
    assert first.generator("a") is first.generator("a")
    assert derive_seed(1, "a") != derive_seed(1, "b") != derive_seed(2, "b")


def test_rng_state_restores_every_generator() -> None:
    runtime = Runtime(torch.device("cpu"), seed=1)
    runtime.generator("a")
    state = runtime.rng_state()
    expected = torch.rand(3), torch.rand(3, generator=runtime.generator("a"))
    runtime.set_rng_state(state)
    actual = torch.rand(3), torch.rand(3, generator=runtime.generator("a"))
    assert torch.equal(torch.stack(actual), torch.stack(expected))


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [("gpu", "auto", "unknown device 'gpu'"), ("cpu", "fp64", "unknown precision 'fp64'")],
)
def test_unknown_names_are_refused(device: str, precision: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Runtime.from_env(device, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device whose absence is tested")
def test_absent_device_is_refused() -> None:
    with pytest.raises(UserError, match="'cuda' is not available here: use --device cpu"):
        Runtime.from_env("cuda")


@pytest.mark.gpu
def test_cuda_is_chosen_and_autocasts() -> None:
    with Runtime.session() as runtime:
        assert runtime.device.type == "cuda"
        with runtime.autocast():
            product = torch.ones(2, 2, device=runtime.device) @ torch.ones(2, 2, device=runtime.device)
        assert product.dtype == torch.bfloat16


def test_bf16_on_request() -> None:
    runtime = Runtime.from_env("cpu", "bf16")
    with runtime.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("auto", True)])
def test_fp32_is_not_tf32(monkeypatch: pytest.MonkeyPatch, precision: str, allowed: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        Runtime.from_env("cuda", precision)
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def reduced(runtime: Runtime) -> tuple[float, bool, bool, str]:
    mean = runtime.all_reduce_mean(torch.tensor(float(runtime.rank)))
    runtime.barrier()
    first = runtime.from_main(f"rank {runtime.rank} of {runtime.world_size}")
    return float(mean), runtime.any_rank(runtime.rank == 1), runtime.any_rank(False), first


def test_two_processes_reduce(two_ranks) -> None:
    assert two_ranks(reduced) == [(0.5, True, False, "rank 0 of 2")] * 2


def second_order_gradient(runtime: Runtime, x: torch.Tensor) -> list[torch.Tensor]:
    class Inner(nn.Module):
        """A loss after one differentiable gradient step, as in meta-learning."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1).double()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            weight = self.linear.weight
            loss = (batch @ weight.T + self.linear.bias).tanh().square().mean(1)
            steps = torch.stack([torch.autograd.grad(one, weight, create_graph=True)[0] for one in loss])
            return (torch.einsum("bi,bji->bj", batch, weight - 0.3 * steps) + self.linear.bias).square().mean()

    torch.manual_seed(0)
    step = runtime.wrap(Inner())
    step(x.chunk(runtime.world_size)[runtime.rank]).backward()
    return [p.grad for p in step.parameters() if p.grad is not None]


def test_two_processes_give_one_process_gradients_second_order_included(two_ranks) -> None:
    x = torch.randn(8, 3, dtype=torch.float64)
    expected = second_order_gradient(Runtime(torch.device("cpu")), x)
    for rank in two_ranks(second_order_gradient, x):
        for actual, reference in zip(rank, expected, strict=True):
            torch.testing.assert_close(actual, reference, rtol=0, atol=1e-12)


def drawn_by_rank(runtime: Runtime) -> tuple[int, list[float], list[float], list[int]]:
    here = Runtime.from_env("cpu", seed=5)
    same = torch.rand(2, generator=here.generator("order")).tolist()
    own = torch.rand(2).tolist()
    here.reseed("again")
    return here.rank, same, own, here.gather(here.rank)


def test_dropout_differs_by_process_and_named_generators_do_not(two_ranks) -> None:
    found = two_ranks(drawn_by_rank)
    for rank, (said, same, own, gathered) in enumerate(found):
        assert said == rank
        assert gathered == [0, 1]
        assert same == found[0][1]
        assert own == torch.rand(2, generator=torch.Generator().manual_seed(5 + rank)).tolist()


def test_to_device_keeps_the_structure() -> None:
    from robustvision_core.data import Batch

    batch = Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    moved = to_device({"a": [batch, (torch.zeros(1), "text")]}, torch.device("cpu"))
    assert isinstance(moved["a"][0], Batch)
    assert moved["a"][1][1] == "text"


def test_metrics() -> None:
    predictions, labels = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 1, 2, 2, 1])
    confusion = confusion_matrix(predictions, labels, 4)
    assert confusion.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert accuracy(confusion) == pytest.approx(3 / 5)
    assert recalls(confusion).tolist() == [1.0, 0.5, 0.5, 0.0]


def test_predict_leaves_the_model_as_it_was() -> None:
    from robustvision_core.data import Batch

    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [Batch(torch.randn(5, 3), torch.zeros(5), torch.zeros(5)) for _ in range(2)]
    logits = predict(model, batches, Runtime(torch.device("cpu")))
    assert logits.shape == (10, 4)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_channels_last_keeps_what_a_network_computes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3)).double()
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    before = network(x)
    channels_last(network)
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in network.parameters() if p.dim() == 4)
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-12)
