from __future__ import annotations

import pytest
import torch
from rml_meta import MAML, Classifier, Episode, build_backbone
from rml_meta.adaptation import dispatch
from rml_meta.networks import BACKBONES, ConvNet, CosineLinear
from torch import nn


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_say_what_they_give(name: str, norm: str) -> None:
    for size in (28, 32):
        for flat in (True, False):
            net = build_backbone(name, 1, size, norm=norm, flat=flat)
            out = net(torch.randn(2, 1, size, size))
            assert out.shape == ((2, net.features) if flat else (2, *net.map_shape))
    kinds = {type(m) for m in net.modules()} & {nn.BatchNorm2d, nn.GroupNorm}
    assert kinds == {"batch": {nn.BatchNorm2d}, "group": {nn.GroupNorm}, "none": set()}[norm]


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("conv4", 84, (64, 5, 5)),  # the published 1600 features
        ("conv4", 28, (64, 1, 1)),
        ("conv4", 224, (64, 5, 5)),  # averaged down
        ("conv6", 84, (64, 5, 5)),
        ("conv4_maps", 84, (64, 19, 19)),
        ("resnet10", 84, (512, 1, 1)),
        ("resnet12", 84, (640, 1, 1)),
    ],
)
def test_published_sizes(name: str, size: int, shape: tuple[int, int, int]) -> None:
    net = build_backbone(name, 3, size).eval()
    assert net.map_shape == shape
    with torch.no_grad():
        assert net(torch.randn(1, 3, size, size)).numel() == shape[0] * shape[1] * shape[2]


def test_parameters_of_the_published_networks() -> None:
    def count(name: str, **options: object) -> int:
        return sum(p.numel() for p in build_backbone(name, 3, 224, **options).parameters())

    block = 64 * 64 * 9 + 64 + 128
    assert count("conv4") == 3 * 64 * 9 + 64 + 128 + 3 * block
    from torchvision.models import resnet18

    theirs = resnet18(weights=None)
    assert count("resnet18") == sum(p.numel() for n, p in theirs.named_parameters() if not n.startswith("fc"))


@pytest.mark.parametrize("name", ["conv4", "resnet10", "resnet12"])
def test_another_size_than_the_network_was_made_for(name: str) -> None:
    net = build_backbone(name, 1, 32).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 1, 48, 48)).shape == net(torch.randn(1, 1, 32, 32)).shape


@pytest.mark.parametrize("backend", ["loop", "vmap", "recompute"])
def test_a_classifier_is_adapted(backend: str) -> None:
    torch.manual_seed(0)
    model = Classifier(build_backbone("conv4", 1, 16, hidden=4), 3, zero_head=True).double()
    assert not model.head.weight.any()  # type: ignore[union-attr]
    x, y = torch.randn(2, 6, 1, 16, 16, dtype=torch.float64), (torch.arange(6) % 3).expand(2, 6)
    losses = []
    for method in (MAML(model, 0.1, 2), MAML(model, 0.1, 2, backend=backend)):
        loss = method(Episode(x, y, x, y))
        losses.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=1e-12)


def test_cosine_classifier() -> None:
    model = Classifier(build_backbone("conv4", 1, 16, hidden=4), 3, cosine=True)
    assert isinstance(model.head, CosineLinear)
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 3)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'vgg': expected one of conv4"):
        build_backbone("vgg", 3, 84)
    with pytest.raises(ValueError, match="unknown norm 'layer'"):
        build_backbone("conv4", 3, 84, norm="layer")
    with pytest.raises(ValueError, match="one value a block"):
        ConvNet(1, 28, [True, True], padding=[1])
    with pytest.raises(ValueError, match="too small for block 2"):
        ConvNet(1, 4, [True, True], padding=[0, 0])


def test_the_head_is_the_last_linear_layer_where_none_has_the_name() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert dispatch.head_prefix(model) == "3."
    assert dispatch.head_prefix(nn.Sequential(nn.Linear(4, 2), nn.ReLU())) == "0."
    with pytest.raises(ValueError, match="the model has no head"):
        dispatch.head_prefix(nn.Sequential(nn.Conv2d(1, 2, 3)))


def test_a_backbone_must_say_how_long_its_features_are() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    with pytest.raises(ValueError, match=r"set backbone\.features = 64"):
        Classifier(backbone, 3)  # type: ignore[arg-type]
    backbone.features = 8  # type: ignore[assignment]
    assert Classifier(backbone, 3)(torch.rand(2, 1, 4, 4)).shape == (2, 3)  # type: ignore[arg-type]
