"""What must not be rounded away: half precision, offsets, missing statistics, numbers that are none."""

from __future__ import annotations

import functools

import pytest
import torch
from rml_meta import MAML, Episode, MatchingNet, ProtoNet, adapt, evaluate_episodes
from rml_meta.adaptation import dispatch
from rml_meta.adaptation.compiled import adapt_compiled
from rml_meta.adaptation.norms import support_buffers
from rml_meta.environments import ColourEnvironments
from rml_meta.evaluation import FeatureCache
from rml_meta.methods.embedding import ClassMeans
from rml_meta.methods.meta_lstm import MetaCell
from torch import Tensor, nn


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProtoNet(nn.Identity(), 5),
        lambda: ProtoNet(nn.Identity(), 5, distance="cosine"),
        lambda: MatchingNet(nn.Identity(), 1600, 5, contextual=False),
    ],
)
def test_comparisons_ignore_autocast(make) -> None:
    method, y = make(), torch.arange(5)
    support, query = features(5, 1600), features(20, 1600, seed=1)
    expected = method.predict(method.fit_support(support, y), query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = method.predict(method.fit_support(support, y), query)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("distance", ["sqeuclidean", "euclidean"])
def test_distances_survive_a_common_offset(distance) -> None:
    method, y = ProtoNet(nn.Identity(), 5, distance=distance), torch.arange(5)
    support, noise = features(5, 256).double(), features(5, 256, seed=1).double()
    query = support + 0.3 * noise
    exact = -(query[:, None] - support).square().sum(-1)
    exact = exact if distance == "sqeuclidean" else -(-exact).sqrt()
    for offset in (0.0, 1000.0):
        found = method.predict(method.fit_support((support + offset).float(), y), (query + offset).float())
        # float32 holds such points to 1000 / 2^24
        torch.testing.assert_close(found.double(), exact, rtol=1e-3 if offset else 1e-5, atol=1e-3)


def test_update_rule_ignores_autocast() -> None:
    torch.manual_seed(0)
    cell = MetaCell()
    theta, grad = features(2, 50), features(2, 50, seed=1)
    expected = cell(cell.start(theta), torch.ones(2), grad).theta
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cell(cell.start(theta), torch.ones(2), grad.bfloat16().float()).theta
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert not torch.equal(expected.bfloat16().float(), expected)


def test_nan_is_no_answer() -> None:
    class Broken(ProtoNet):
        def compare(self, state: ClassMeans, features: Tensor) -> Tensor:
            return super().compare(state, features) * torch.nan

    y = torch.arange(3)
    episode = Episode(features(2, 3, 4), y.expand(2, -1), features(2, 3, 4), y.expand(2, -1))
    assert evaluate_episodes(ProtoNet(nn.Identity(), 3), [episode]).mean > 0
    assert evaluate_episodes(Broken(nn.Identity(), 3), [episode]).mean == 0


def test_compiled_rate_of_integer_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "adapt_compiled", functools.partial(adapt_compiled, compiler="eager"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 3))
    x, y = torch.randint(7, (6, 2)), torch.arange(6) % 3
    expected = adapt(model, x, y, steps=2, lr=0.5, backend="loop")
    found = adapt(model, x, y, steps=2, lr=0.5, backend="compiled")
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found["2.weight"], model[2].weight)


@pytest.mark.parametrize("momentum", [0.0, 0.1, None])
def test_support_statistics_of_any_momentum(momentum: float | None) -> None:
    model, x = nn.Sequential(nn.BatchNorm1d(4, momentum=momentum)), features(9, 4)
    buffers = support_buffers(model, dict(model.named_parameters()), x)
    torch.testing.assert_close(buffers["0.running_mean"], x.mean(0))
    torch.testing.assert_close(buffers["0.running_var"], x.var(0))
    assert model[0].momentum == momentum
    assert model.training


def test_inductive_use_needs_running_statistics() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    method, y = MAML(model, inner_lr=0.1, inner_steps=1), torch.arange(6) % 3
    method.transductive = False
    with pytest.raises(ValueError, match="1 has track_running_stats=False"):
        method.fit_support(features(6, 4), y)
    method.transductive = True
    assert method.predict(method.fit_support(features(6, 4), y), features(6, 4)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": -1}, "steps must not be negative"), ({"steps": 1, "params": {}}, "params lacks")],
)
def test_adapt_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(nn.Linear(4, 3), features(6, 4), torch.arange(6) % 3, lr=0.1, **options)


def test_feature_cache_works_on_the_backbones_device() -> None:
    backbone = nn.Linear(4, 2, device="meta")
    assert FeatureCache.compute(backbone, features(3, 4)).features.device.type == "meta"


def test_more_classes_than_colours() -> None:
    labels = torch.arange(6)[None]
    with pytest.raises((IndexError, RuntimeError)):
        ColourEnvironments((0.5,))(torch.rand(1, 6, 1, 4, 4), labels, torch.Generator())
