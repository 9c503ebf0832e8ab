from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import rml_meta
import torch
import torch.nn.functional as F
from rml_meta import (
    MAML,
    RML,
    Baseline,
    BaselinePP,
    Episode,
    FeatureCache,
    FewShotMethod,
    MatchingNet,
    MetaLSTM,
    ProtoNet,
    RelationNet,
    Reptile,
    evaluate_episodes,
)
from rml_meta.evaluation import mean_interval, student_t_quantile
from rml_meta.evaluation.intervals import bisected_quantile
from robustvision_core.data import EpisodeSampler, ImageSet
from scipy import stats
from torch import Tensor, nn

WAYS, SHOTS, QUERIES, SIZE = 3, 2, 5, 8


class Body(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(SIZE, 16), nn.BatchNorm1d(16), nn.Tanh())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.head = Body(), nn.Dropout(0.3), nn.Linear(16, WAYS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x)))


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZE, 32)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x)).view(-1, 8, 2, 2)


SGD = functools.partial(torch.optim.SGD, lr=1.0)
METHODS: dict[str, Callable[[], FewShotMethod]] = {
    "maml": lambda: MAML(Net(), 0.3, 3),
    "maml first order": lambda: MAML(Net(), 0.3, 3, first_order=True),
    "anil": lambda: MAML(Net(), 0.3, 3, adapted="head"),
    "boil": lambda: MAML(Net(), 2.0, 5, adapted="body"),
    "meta-sgd": lambda: MAML(Net(), 0.3, 3, learn_lr="meta-sgd"),
    "maml++": lambda: MAML(Net(), 0.3, 3, learn_lr="per-step", per_step_norm=True, multi_step_epochs=2),
    "maml vmap": lambda: MAML(Net(), 0.3, 3, backend="vmap"),
    "rml": lambda: RML(Net(), 0.3, 3, penalty="irmv1", penalty_weight=0.1),
    "reptile": lambda: Reptile(Net(), 8, 20, inner_batch=None, inner_optimizer=SGD),
    "meta-lstm": lambda: MetaLSTM(Net(), 4),
    "matching": lambda: MatchingNet(Body(), 16, scale=10.0),
    "protonet": lambda: ProtoNet(Body(), WAYS),
    "relation": lambda: RelationNet(Maps(), (8, 2, 2), hidden=16),
}
BASELINES: dict[str, Callable[[], FewShotMethod]] = {
    "baseline": lambda: Baseline(Body(), 16, 6, fit_epochs=15),
    "baseline++": lambda: BaselinePP(Body(), 16, 6, fit_epochs=15),
}


def problem(seed: int, *leading: int, groups: int | None = None) -> Episode:
    """Classes differ along two hidden directions; six others are louder and tell nothing."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(99)))[0]
    angle = torch.rand(*leading, WAYS, generator=g).argsort(-1) * (2 * torch.pi / WAYS)
    angle = angle + 2 * torch.pi * torch.rand(*leading, 1, generator=g)
    if len(leading) == 2:  # the same classes in every environment
        angle = angle[:, :1].expand(angle.shape)
    centre = torch.stack([angle.cos(), angle.sin()], -1)[..., None, :].expand(*leading, WAYS, SHOTS + QUERIES, 2)
    told = centre + 0.2 * torch.randn(centre.shape, generator=g)
    loud = 1.5 * torch.randn(*leading, WAYS, SHOTS + QUERIES, SIZE - 2, generator=g)
    x = torch.cat([told, loud], -1) @ mix
    y = torch.arange(WAYS)[:, None].expand(*leading, WAYS, SHOTS + QUERIES)
    n = len(leading)
    return Episode(
        x[..., :SHOTS, :].flatten(n, n + 1),
        y[..., :SHOTS].flatten(n),
        x[..., SHOTS:, :].flatten(n, n + 1),
        y[..., SHOTS:].flatten(n),
    )


@pytest.mark.parametrize("name", METHODS)
def test_methods_learn(name: str) -> None:
    method = METHODS[name]()
    test = [problem(10**6 + i, 25) for i in range(2)]
    wanted = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(wanted, 0.3) if name == "reptile" else torch.optim.Adam(wanted, 0.02)
    before = evaluate_episodes(method, test).mean
    for step in range(100 if name in ("boil", "reptile") else 40):
        loss = method(problem(step, 2, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    result = evaluate_episodes(method, test)
    assert before < 0.65  # the inner loop alone does not do it
    assert result.mean - result.interval > before + 0.2, str(result)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_learn(name: str) -> None:
    method = BASELINES[name]()
    optimizer = torch.optim.Adam(method.parameters(), 0.02)
    centres = torch.arange(6) * (2 * torch.pi / 6)
    mix = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(99)))[0]
    for _ in range(100):
        y = torch.randint(6, (48,))
        told = torch.stack([centres[y].cos(), centres[y].sin()], -1) + 0.2 * torch.randn(48, 2)
        x = torch.cat([told, 1.5 * torch.randn(48, SIZE - 2)], -1) @ mix
        optimizer.zero_grad()
        method((x, y)).backward()
        optimizer.step()
    result = evaluate_episodes(method, [problem(10**6, 40)])
    assert result.mean - result.interval > 1 / WAYS + 0.1, str(result)


def test_chance_is_what_labels_without_a_meaning_give() -> None:
    e = problem(0, 200)
    shuffled = e._replace(query_y=e.query_y[:, torch.randperm(WAYS * QUERIES)])
    result = evaluate_episodes(ProtoNet(nn.Identity()), [shuffled])
    assert result.mean == pytest.approx(1 / WAYS, abs=0.06)


@pytest.mark.parametrize("transductive", [False, True])
@pytest.mark.parametrize("name", {**METHODS, **BASELINES})
def test_evaluation_changes_nothing_and_keeps_no_graph(name: str, transductive: bool) -> None:
    method = {**METHODS, **BASELINES}[name]()
    for module in method.modules():  # statistics that would show if they were used or updated
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()  # type: ignore[union-attr]
    method.train()
    method.get_submodule("model" if hasattr(method, "model") else "backbone").eval()
    before = {n: v.clone() for n, v in method.state_dict().items()}
    modes = [m.training for m in method.modules()]
    default = method.transductive
    e = problem(3, 2)
    one, two = (evaluate_episodes(method, [e, e], transductive=transductive) for _ in range(2))
    assert torch.equal(one.per_episode, two.per_episode)
    assert one.transductive == transductive
    assert all(torch.equal(v, before[n]) for n, v in method.state_dict().items())
    assert modes == [m.training for m in method.modules()]
    assert method.transductive == default
    assert all(p.grad is None for p in method.parameters())
    assert not method.predict(method.fit_support(e.support_x, e.support_y), e.query_x).requires_grad


@pytest.mark.parametrize("name", {**METHODS, **BASELINES})
def test_inductive_queries_do_not_see_each_other(name: str) -> None:
    method = {**METHODS, **BASELINES}[name]()
    e = problem(3, 2)
    method.transductive = False
    state = method.fit_support(e.support_x, e.support_y)
    whole = method.predict(state, e.query_x)
    alone = torch.cat([method.predict(state, e.query_x[:, q : q + 1]) for q in range(4)], 1)
    torch.testing.assert_close(whole[:, :4], alone, rtol=1e-4, atol=1e-5)


def test_inductive_maml_uses_the_support_statistics() -> None:
    e = problem(3)
    method = MAML(Net(), 0.3, 2)
    method.transductive = False
    state = method.fit_support(e.support_x, e.support_y)
    p = state.tasks[0].fast
    h = e.support_x @ p["body.0.weight"].T + p["body.0.bias"]
    q = e.query_x @ p["body.0.weight"].T + p["body.0.bias"]
    q = (q - h.mean(0)) / (h.var(0, correction=1) + 1e-5).sqrt()  # as running statistics, over n - 1
    expected = torch.tanh(q * p["body.1.weight"] + p["body.1.bias"]) @ p["head.weight"].T + p["head.bias"]
    torch.testing.assert_close(method.predict(state, e.query_x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_training_touches_no_running_statistics_of_gradient_methods(name: str) -> None:
    method = METHODS[name]()
    method(problem(1, 2, 2)).backward()
    touched = [
        int(m.num_batches_tracked)  # type: ignore[arg-type]
        for m in method.modules()
        if isinstance(m, nn.BatchNorm1d)
    ]
    assert all(n == (0 if hasattr(method, "model") else 1) for n in touched)


def test_accuracy_is_counted_by_task() -> None:
    class Fixed(FewShotMethod):
        def training_loss(self, batch: object) -> Tensor:
            return torch.zeros(())

        def fit_support(self, support_x: Tensor, support_y: Tensor) -> None:
            return None

        def predict(self, state: None, query_x: Tensor) -> Tensor:
            return F.one_hot(query_x.long(), 2).float()

    answers, truth = torch.randint(2, (2, 3, 7)), torch.randint(2, (2, 3, 7))
    e = Episode(answers[..., :2], truth[..., :2], answers, truth)
    result = evaluate_episodes(Fixed(), [e])
    shares = (answers == truth).double().mean(-1).flatten().numpy()
    np.testing.assert_allclose(result.per_episode, shares)
    low, high = stats.t.interval(0.95, 5, loc=shares.mean(), scale=stats.sem(shares))
    assert result.mean == pytest.approx((low + high) / 2)
    assert result.interval == pytest.approx((high - low) / 2, rel=1e-9)
    assert str(result).endswith("(95 % confidence interval, 6 episodes, inductive)")


@pytest.mark.parametrize("freedom", [1, 2, 5, 30, 599, 9999])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9995])
def test_student_quantile(probability: float, freedom: int) -> None:
    assert student_t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)
    assert bisected_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-8)


def test_student_quantile_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stats.t.ppf(0.975, 7)
    monkeypatch.setitem(sys.modules, "scipy.special", None)  # an import of it fails
    assert student_t_quantile(0.975, 7) == bisected_quantile(0.975, 7) == pytest.approx(expected, rel=1e-8)


def test_interval_needs_two_values() -> None:
    with pytest.raises(ValueError, match="at least 2 values"):
        mean_interval(torch.ones(1))
    with pytest.raises(ValueError, match="at least 2 values"):
        evaluate_episodes(ProtoNet(nn.Identity()), [])
    with pytest.raises(ValueError, match="probability in"):
        student_t_quantile(0.4, 3)


def test_feature_cache_gives_the_accuracy_of_the_images() -> None:
    data = ImageSet(torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8), torch.arange(40) % 4, tuple("abcd"))
    sampler = EpisodeSampler(data, 3, 2, 4, 6, mean=0.5, std=0.25)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    images = (data.images.float() / 255 - 0.5) / 0.25
    cache = FeatureCache.compute(backbone, images, batch_size=7)
    assert backbone.training
    cached = []
    for number in range(6):
        index, (support_y, query_y) = sampler.indices([number]), sampler.draws.labels()
        cached.append(cache.episode(index.support, support_y[None], index.query, query_y[None]))
    slow = evaluate_episodes(ProtoNet(backbone, 3), sampler.epoch(0))
    fast = evaluate_episodes(ProtoNet(nn.Identity(), 3), cached)
    assert torch.equal(slow.per_episode, fast.per_episode)


def test_public_names() -> None:
    for name in rml_meta.__all__:
        assert getattr(rml_meta, name).__doc__
    assert set(rml_meta.__all__) <= set(dir(rml_meta))
    with pytest.raises(AttributeError, match="No rml_meta attribute Missing"):
        rml_meta.Missing  # type: ignore[attr-defined]  # noqa: B018


def test_the_library_imports_torch_only() -> None:
    code = (
        "import sys, rml_meta\n"
        "assert 'torch' not in sys.modules\n"
        "[getattr(rml_meta, name) for name in rml_meta.__all__]\n"
        "assert not {'robustvision_core', 'higher', 'torchvision', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
