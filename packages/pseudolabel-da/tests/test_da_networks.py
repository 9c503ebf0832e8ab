"""Networks of other libraries with their normalisation, and images standardised one by one."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
from pseudolabel_da.cli import main
from pseudolabel_da.cli.classifier import new_classifier
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.networks import Normalised, SmallCNN, Standardised
from pseudolabel_da.rivals.transfer import TransferLoss
from robustvision_core.errors import UserError
from robustvision_core.predict import load_run
from torch import nn
from torchvision import models

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def test_standardised_images_lose_brightness_and_contrast() -> None:
    images = torch.randn(4, 3, 16, 16)
    network = Standardised(SmallCNN(3, 16, 5), floor=0.0).eval()
    expected = torch.stack([(x - x.mean()) / x.std() for x in images])
    torch.testing.assert_close(network.scale(images), expected)
    torch.testing.assert_close(network(images), network(0.3 * images - 0.5), atol=1e-4, rtol=0)
    assert not torch.allclose(network(images), network(-images))
    assert bool(Standardised(SmallCNN(3, 16, 5)).scale(torch.ones(1, 3, 16, 16)).isfinite().all())


def test_normalised_networks_see_images_as_their_weights_know_them() -> None:
    plain = SmallCNN(3, 16, 5).eval()
    network, pixels = Normalised(plain, MEAN.tolist(), STD.tolist()).eval(), torch.rand(4, 3, 16, 16)
    known = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(network(pixels * 2 - 1), plain(known))
    torch.testing.assert_close(network.head(network.features(pixels * 2 - 1)), plain(known))
    TransferLoss(network, nn.CrossEntropyLoss(), "dann")  # features and head are there
    assert set(network.state_dict()) == {f"network.{name}" for name in plain.state_dict()}


def test_weights_of_another_library_with_another_head(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    theirs = models.mobilenet_v3_small(num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    options = ["--network", "torchvision:mobilenet_v3_small", "--weights", str(tmp_path / "weights.pth")]
    size = ["--image-size", "32", "--pretrain", "1", "--epochs", "1", "--device", "cpu", "--progress", "False"]
    out = tmp_path / "run"
    assert main(["train", "--preset", "smoke", *options, *size, "--out", str(out)]) == 0
    assert "weights loaded but for the head classifier.3" in capsys.readouterr().err
    (tmp_path / "weights.pth").unlink()  # the run needs it no more
    predictor = load_run(out, device="cpu")
    pixels = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    known = (pixels[None] / 255 - MEAN[:, None, None]) / STD[:, None, None]
    inner = predictor.network.network
    with torch.no_grad():
        expected = inner(known).softmax(1)
    torch.testing.assert_close(predictor.predict(pixels).probabilities, expected, atol=1e-5, rtol=1e-4)
    assert main(["evaluate", "--run", str(out), "--device", "cpu"]) == 0


def test_timm_networks_are_built_with_their_own_normalisation() -> None:
    timm = pytest.importorskip("timm")
    config = TrainConfig(network="timm:resnet10t")
    made = new_classifier(config, 3, 32, 4).network
    assert isinstance(made, Normalised)
    own: Any = timm.create_model("resnet10t", pretrained=False).pretrained_cfg
    assert made.mean.flatten().tolist() == pytest.approx(own["mean"])
    assert made.std.flatten().tolist() == pytest.approx(own["std"])
    assert made(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": "resnet19"}, "unknown network 'resnet19': did you mean 'resnet18'"),
        ({"weights": "w.pth"}, "--weights is for networks of timm and torchvision; cnn starts from --init"),
        ({"network": "timm:resnet18", "standardise": True}, "has its own normalisation"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TrainConfig(**options)


def test_standardise_is_kept_by_the_run(tmp_path: pathlib.Path) -> None:
    options = ["--preset", "smoke", "--standardise", "True", "--pretrain", "1", "--epochs", "1", "--progress", "False"]
    assert main(["train", *options, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    predictor, pixels = load_run(tmp_path / "run", device="cpu"), torch.randint(60, 200, (3, 16, 16), dtype=torch.uint8)
    assert isinstance(predictor.network, Standardised)
    near, brighter, turned = (predictor.predict(x).probabilities for x in (pixels, pixels + 40, 255 - pixels))
    torch.testing.assert_close(near, brighter, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(near, turned, atol=1e-3)
