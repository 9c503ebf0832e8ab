"""Tasks side by side in the channels: the numbers of one task after the other, or a refusal by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rml_meta import MAML, RML, Classifier, CosineLinear, Episode, adapt, build_backbone
from rml_meta.adaptation import grouped
from rml_meta.adaptation.batch_norm import batch_norm
from torch import Tensor, nn

D = torch.float64


def tasks(*leading: int, channels: int = 2, side: int = 8) -> Episode:
    generator = torch.Generator().manual_seed(0)
    x, q = torch.rand(2, *leading, 6, channels, side, side, generator=generator, dtype=D)
    y = torch.arange(6).expand(*leading, 6) % 3
    return Episode(x, y, q, y)


def layers(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts).to(D)


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    body = {name: build_backbone(name, 2, 8, **options) for name, options in BACKBONES.items()}
    made: dict[str, nn.Module] = {name: Classifier(backbone, 3).to(D) for name, backbone in body.items()}
    made["strided, grouped, dilated, no bias"] = layers(
        nn.Conv2d(2, 4, 3, stride=2, groups=2, bias=False), nn.Conv2d(4, 4, 2, dilation=2, padding="same"), nn.Tanh(),
        nn.Flatten(), nn.Linear(36, 3, bias=False),
    )  # fmt: skip
    made["circular padding"] = layers(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    made["instance norm"] = layers(
        nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    made["group norm"] = layers(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 3))
    made["norm without affine"] = layers(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False), nn.SiLU(), nn.Flatten(), nn.Linear(144, 3)
    )
    made["vectors"] = layers(nn.Flatten(), nn.Linear(128, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return made


BACKBONES: dict[str, dict[str, Any]] = {
    "conv4": {"hidden": 4},
    "conv6": {"hidden": 4, "norm": "group"},
    "resnet10": {},
    "resnet12": {"widths": (2, 3, 4, 5)},
}
NAMES = [
    *BACKBONES,
    "strided, grouped, dilated, no bias",
    "circular padding",
    "instance norm",
    "group norm",
    "norm without affine",
    "vectors",
]


def gradient(method: MAML, e: Episode) -> Tensor:
    loss = method.training_loss(e)
    grads = torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad], allow_unused=True)
    return torch.cat([loss.detach().flatten(), *(g.flatten() for g in grads if g is not None)])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_loop(name: str) -> None:
    model, e = models()[name], tasks(3)
    found = {b: gradient(MAML(model, 0.1, 2, backend=b), e) for b in ("loop", "grouped", "auto")}  # type: ignore[arg-type]
    torch.testing.assert_close(found["grouped"], found["loop"], rtol=1e-9, atol=1e-11)
    assert torch.equal(found["auto"], found["loop" if name == "resnet10" else "grouped"])  # of up to 512 channels


@pytest.mark.parametrize("name", ["strided, grouped, dilated, no bias", "conv4"])
def test_wide_convolutions_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "WIDE", 3)
    test_gradients_are_those_of_the_loop(name)


@pytest.mark.parametrize(
    "options",
    [
        {"first_order": True},
        {"learn_lr": "meta-sgd"},
        {"learn_lr": "per-step"},
        {"per_step_norm": True},
        {"adapted": "head"},
        {"adapted": "body"},
        {"reduction": "sum"},
        {"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"inner_lr": 0.0},
    ],
)
def test_options_of_maml(options: dict[str, Any]) -> None:
    model, e = models()["conv4"], tasks(2)
    found = [gradient(MAML(model, **{"inner_lr": 0.1, "inner_steps": 2, "backend": b} | options), e) for b in PAIR]
    for p in model.parameters():
        p.requires_grad_(True)  # per_step_norm freezes what its tables replace
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


PAIR = ("loop", "grouped")


@pytest.mark.parametrize("options", [{}, {"include_self": True, "penalty": "vrex"}, {"penalty": "irmv1"}])
def test_pairs_of_rml(options: dict[str, Any]) -> None:
    model, e = models()["conv4"], tasks(2, 3)
    found = [gradient(RML(model, 0.1, 2, backend=b, **options), e) for b in PAIR]  # type: ignore[arg-type]
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


def test_regression() -> None:
    torch.manual_seed(0)
    model = layers(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2))
    x, y = torch.randn(2, 3, 5, 1, dtype=D), torch.randn(2, 3, 5, 2, dtype=D)
    e = Episode(x[0], y[0], x[1], y[1])
    found = [gradient(MAML(model, 0.1, 3, backend=b, loss_fn=F.mse_loss), e) for b in PAIR]  # type: ignore[arg-type]
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


def test_adapt_gives_each_task_its_parameters() -> None:
    model, e = models()["conv4"], tasks(3)
    found = [adapt(model, e.support_x, e.support_y, steps=2, lr=0.1, backend=b) for b in PAIR]  # type: ignore[arg-type]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-9, atol=1e-11)
    one = [adapt(model, e.support_x[0], e.support_y[0], steps=2, lr=0.1, backend=b)["head.bias"] for b in PAIR]  # type: ignore[arg-type]
    assert torch.equal(one[0], one[1])
    with torch.no_grad():
        out = adapt(model, e.support_x, e.support_y, steps=2, lr=0.1, backend="grouped")
    assert not any(value.requires_grad for name, value in out.items() if name.endswith("head.bias"))


def test_dropout_draws_for_every_task_and_obeys_the_mode() -> None:
    torch.manual_seed(0)
    model = layers(nn.Flatten(), nn.Linear(128, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    method, e = MAML(model, 0.1, 1, backend="grouped"), tasks(2)
    assert method.training_loss(e) != method.training_loss(e)
    method.eval()
    torch.testing.assert_close(method.training_loss(e), MAML(model, 0.1, 1).eval().training_loss(e))


def test_buffers_and_modes_stay() -> None:
    model, e = models()["conv4"], tasks(2)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    method = MAML(model, 0.1, 1, backend="grouped")
    method.training_loss(e).backward()
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert "grouped" not in "".join(method.state_dict())


class Joined(nn.Module):
    """Joins channels, as dense networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.one(x), self.two(x)], 1).mean((2, 3)))


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(1)) * self.weight.mean()


class OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.ones(())), nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scale * x.flatten(1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 3)), r"1 \(LayerNorm\) cannot be grouped"),
        (nn.Sequential(nn.Flatten(2), nn.Linear(64, 3)), "0 is Flatten that does not begin at dimension 1"),
        (nn.Sequential(nn.Flatten(), CosineLinear(128, 3)), r"1 \(CosineLinear\) cannot be grouped"),
        (nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(243, 3)), "0 is a transposed convolution"),
        (nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(128, 3))), "parametrizations"),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 3), nn.Softmax(1)), r"2 \(Softmax\)"),
        (Joined(), "mixes the tasks when they are grouped"),
        (OwnParameter(), r"the model \(OwnParameter\) cannot be grouped"),
    ],
)
def test_what_cannot_be_grouped_is_refused_by_name(model: nn.Module, message: str) -> None:
    model, e = model.to(D), tasks(2)
    with pytest.raises(ValueError, match=message):
        MAML(model, 0.1, 1, backend="grouped").training_loss(e)
    if "dimension 1" not in message:  # which has three dimensions of logits
        values = [MAML(model, 0.1, 1, backend=b).training_loss(e) for b in ("auto", "loop")]  # type: ignore[arg-type]
        torch.testing.assert_close(values[0], values[1])


class Viewed(nn.Module):
    """Takes a view that needs the channels first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.Linear(27, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x))
        return self.head(x.view(len(x), -1))


def test_a_view_of_the_model_keeps_its_layout() -> None:
    model, e = Viewed().to(D), tasks(3)
    found = [gradient(MAML(model, 0.1, 2, backend=b), e) for b in ("loop", "grouped", "grouped")]  # type: ignore[arg-type]
    for other in found[1:]:  # the second time the layout is known
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "ceil_mode": True}],
)
def test_pooling_of_any_kind(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = layers(
        nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.MaxPool2d(**options), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    e = tasks(2)
    found = [gradient(MAML(model, 0.1, 2, backend=b), e) for b in PAIR]  # type: ignore[arg-type]
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 2, 4, 3), (6, 2), (4, 3, 5)])
def test_batch_norm_against_differences_and_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(s, dtype=D, requires_grad=True) for s in (shape, shape[1], shape[1]))

    def ours(*given: Tensor) -> Tensor:
        return batch_norm(*given, 1e-5)

    assert torch.autograd.gradgradcheck(ours, (x, weight, bias))
    given, second = (x, weight, bias), []
    for norm in (ours, lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.0, 1e-5)):
        grads = torch.autograd.grad((norm(*given).sin() ** 2).sum(), given, create_graph=True)
        second.append(torch.autograd.grad(sum((g**2).sum() for g in grads), given))  # type: ignore[arg-type]
    for one, other in zip(*second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_batch_norm_has_no_third_derivative() -> None:
    x, ones = torch.randn(4, 2, dtype=D, requires_grad=True), torch.ones(2, dtype=D, requires_grad=True)
    first = torch.autograd.grad((batch_norm(x, ones, ones, 1e-5) ** 3).sum(), x, create_graph=True)[0]
    second = torch.autograd.grad((first**3).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_reheaded_is_refused() -> None:
    with pytest.raises(ValueError, match="another backend than 'grouped'"):
        RML(models()["conv4"], class_alignment="reheaded", backend="grouped")
