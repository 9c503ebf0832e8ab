"""Off the CPU nothing waits for the device: no value is read, and no constant is copied to it a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffpnp_pose import Huber, SampleConsensus, reproject, solve_pnp
from diffpnp_pose.geometry import quaternions
from diffpnp_pose.pnp import moments, problem, refine
from diffpnp_pose.pnp.consensus import samples
from diffpnp_pose.pnp.starts import algebraic, coefficients, control_points, orthographic, p3p
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CONSTANTS = (
    quaternions.outer_product_matrix,
    moments._picked,
    moments._metric,
    moments._assembly,
    p3p.places_on,
    problem._stand_in,
    orthographic._constants,
    refine._constants,
    control_points._ends,
    coefficients._start_places,
    samples._draws,
    algebraic._first_block,
)
OPTIONS = [
    {},
    {"init": "weak_perspective"},
    {"init": "sqpnp"},
    {"robust": Huber(2.0)},
    {"robust": SampleConsensus(3.0, hypotheses=40)},
    {"constraint": "bpnp"},
    {"backward": "unrolled"},
]


@pytest.fixture
def no_constants() -> Iterator[None]:
    """Constants without data must not stay behind, nor real ones be found."""
    for held in CONSTANTS:
        held.cache_clear()
    yield
    for held in CONSTANTS:
        held.cache_clear()


class Transfers(TorchDispatchMode):
    """Counts copies from one device to another."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation."""
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self.count += args[0].device != result.device
        elif func is torch.ops.aten.copy_.default:
            self.count += args[0].device != args[1].device
        return result


@pytest.mark.usefixtures("no_constants")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_no_value_is_read_and_nothing_is_copied_again(options: dict[str, Any]) -> None:
    """With tensors that have a shape and a device but no values, reading one raises."""
    with FakeTensorMode():
        x = torch.rand(4, 9, 2, device="cuda", requires_grad=True)
        z, K = torch.rand(9, 3, device="cuda"), torch.rand(3, 3, device="cuda")
        weights, mask = torch.rand(9, device="cuda"), torch.ones(4, 9, dtype=torch.bool, device="cuda")
        for first in (True, False):
            with Transfers() as transfers:
                result = solve_pnp(x, z, K, weights=weights, mask=mask, **options)
                reproject(result, z, K)
                assert result.covariance.shape == (4, 6, 6)
            assert result.pose.device.type == "cuda"
            assert bool(transfers.count) == first


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_gpu_is_never_waited_for_and_agrees(options: dict[str, Any], make_case: Callable[..., Any]) -> None:
    case = make_case(8, 9, 0.5)

    def run(device: str) -> tuple[Tensor, Tensor]:
        x = case.x.to(device).requires_grad_()
        z, K, c = (value.to(device) for value in (case.z, case.K, case.c))
        if device == "cuda":
            solve_pnp(x, z, K, weights=c, **options).pose.sum().backward()  # fills the constants
            x.grad = None
            torch.cuda.set_sync_debug_mode("error")
        try:
            result = solve_pnp(x, z, K, weights=c, **options)
            result.pose.sum().backward()
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        assert x.grad is not None
        return result.pose.detach().cpu(), x.grad.cpu()

    for found, expected in zip(run("cuda"), run("cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
