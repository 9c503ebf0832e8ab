"""Poses on the whole circle: the phase winds, densities stay exact, and former flows keep their form."""

from __future__ import annotations

import io
import math

import pytest
import torch
from flowaug import AffineSpace, ConditionalFlow, FlowAugmenter, FlowSpec
from flowaug.flows import CircularShift, WindingShift, wrap
from torch import Tensor, nn


def circle(angles: Tensor) -> Tensor:
    """Points (..., 2) of the circle at angles in half circles."""
    return torch.stack([torch.cos(math.pi * angles), torch.sin(math.pi * angles)], -1)


def pose_error(phase: str, seed: int, base: str = "mog", steps: int = 400) -> float:
    """Mean error in degrees of a supervised pose over the whole circle, noise of 9 degrees; chance is 90."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 16))
    flow = ConditionalFlow(1, 16, FlowSpec(layers=2, components=4, base=base, phase=phase), [True])
    optimizer = torch.optim.Adam([*encoder.parameters(), *flow.parameters()], 5e-3)
    for _ in range(steps):
        angles = 2 * torch.rand(128) - 1
        poses = wrap(angles + 0.05 * torch.randn(128))
        loss = -flow.log_prob(poses[:, None, None], encoder(circle(angles))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        angles = torch.linspace(-1, 1, 200)
        samples = flow.sample(encoder(circle(angles)), 100)[0][..., 0]
    return 180 * float(wrap(samples - angles[:, None]).abs().mean())


@pytest.mark.parametrize(("base", "seed"), [("mog", 1), ("student_t", 0)])
def test_a_pose_on_the_whole_circle_is_learned(base: str, seed: int) -> None:
    assert pose_error("atan2", seed, base) < 20


@torch.no_grad()
def test_a_linear_phase_cannot_wind() -> None:
    """Along a closed path of contexts it returns to where it began; the other goes round."""
    contexts = circle(torch.linspace(-1, 1, 101, dtype=torch.float64))
    linear, winding = CircularShift([True], 2).double(), WindingShift([True], 2).double()
    linear.context.weight.copy_(torch.tensor([[3.0, 1.0]]))
    winding.context.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    winding.context.bias.zero_()
    for shift, times in ((linear, 0), (winding, 1)):
        phases = shift.phases(shift.context(contexts))[:, 0]
        steps = phases.diff()
        steps = steps if times == 0 else wrap(steps)
        assert float(steps.sum()) / 2 == pytest.approx(times, abs=1e-9)
        assert float(steps.abs().max()) < 0.25  # no tear


@torch.no_grad()
def test_phases_start_close_to_zero_and_far_from_no_angle() -> None:
    """New augmenters leave images upright; a change of a hundredth of the read-outs brings a phase anywhere."""
    shift, contexts = WindingShift([True], 32), torch.randn(500, 32)
    assert float(shift.phases(shift.context(contexts)).abs().mean()) < 0.15
    shift.context.bias.sub_(0.02)
    assert float(shift.phases(shift.context(contexts)).abs().mean()) > 0.6


@pytest.mark.parametrize("phase", ["atan2", "linear"])
def test_density_on_the_circle_is_exact(phase: str) -> None:
    """It integrates to one, is the same both ways, and has the gradient that finite differences have."""
    flow = ConditionalFlow(1, 3, FlowSpec(layers=2, width=8, components=3, scale=0.4, phase=phase), [True]).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    context = torch.randn(4, 3, dtype=torch.float64)
    grid = ((torch.arange(40000, dtype=torch.float64) + 0.5) / 20000 - 1).view(1, -1, 1).expand(4, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(
            flow.log_prob(grid, context).exp().mean(1) * 2, torch.ones(4).double(), rtol=1e-3, atol=0
        )
        w, log_prob = flow.sample(context, 50)
        torch.testing.assert_close(flow.log_prob(w, context), log_prob, rtol=0, atol=1e-9)
    assert torch.autograd.gradcheck(lambda c: flow.log_prob(w[:, :3], c), context.requires_grad_())


def test_what_a_flow_moves_travels_with_its_weights() -> None:
    """Flows of other random halves become the flow whose state they load, exactly."""
    for spec in ({"layers": 6}, {"layers": 4, "coupling": "rqs"}):
        source, target = (FlowAugmenter(AffineSpace(), flow=FlowSpec(**spec, width=8, seed=seed)) for seed in (0, 1))
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        x, w = torch.rand(2, 3, 16, 16), torch.rand(2, 20, 6) - 0.5
        target.load_state_dict(source.state_dict())
        assert torch.equal(source.log_prob(x, w), target.log_prob(x, w))
        drawn = [a.sample(x, 3, torch.Generator().manual_seed(0))[0] for a in (source, target)]
        assert torch.equal(*drawn)


def former(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state as it was before structure was part of it."""
    new = ("coordinates", "bounded", "circles", "moved")
    return {name: value for name, value in state.items() if name.rsplit(".", 1)[-1] not in new}


def test_former_states_load_in_the_form_they_were_trained_in() -> None:
    spec = FlowSpec(layers=4, width=8, phase="linear")
    source = FlowAugmenter(AffineSpace(("rot", "tx")), flow=spec)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    file = io.BytesIO()
    torch.save(former(source.state_dict()), file)
    file.seek(0)
    target = FlowAugmenter(AffineSpace(("rot", "tx")), flow=FlowSpec(layers=4, width=8))
    target.load_state_dict(torch.load(file, weights_only=True))
    assert target.flow.spec.phase == "linear"
    x, w = torch.rand(2, 3, 16, 16), torch.rand(2, 20, 2) - 0.5
    assert torch.equal(source.log_prob(x, w), target.log_prob(x, w))
    again = FlowAugmenter(AffineSpace(("rot", "tx")), flow=spec)
    again.load_state_dict(FlowAugmenter(AffineSpace(("rot", "tx")), flow=FlowSpec(layers=4, width=8)).state_dict())
    assert again.flow.spec.phase == "atan2"


@pytest.mark.parametrize(
    ("space", "flow", "message"),
    [
        (AffineSpace(("tx", "rot")), FlowSpec(layers=2), "over rot,tx, this one is over tx,rot"),
        (AffineSpace(("scale", "tx")), FlowSpec(layers=2), "over rot,tx, this one is over scale,tx"),
        (AffineSpace(("rot", "tx"), rot_max=1.0), FlowSpec(layers=2), "periodic coordinates"),
        (AffineSpace(("rot", "tx")), FlowSpec(layers=2, box=None), "with a box: True, this one has False"),
        (AffineSpace(("rot", "tx", "ty")), FlowSpec(layers=2), "size mismatch"),
    ],
)
def test_states_of_other_spaces_are_refused(space: AffineSpace, flow: FlowSpec, message: str) -> None:
    state = FlowAugmenter(AffineSpace(("rot", "tx")), flow=FlowSpec(layers=2)).state_dict()
    with pytest.raises(RuntimeError, match=message):
        FlowAugmenter(space, flow=flow).load_state_dict(state)
