"""Networks of timm and torchvision: trained, with weights of a file, and used without any training."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
from rml_meta import BaselinePP, MatchingNet, ProtoNet
from rml_meta.cli import main
from rml_meta.cli.predict import load_run
from rml_meta.cli.recipes import TrainConfig
from robustvision_core.errors import UserError

SMOKE = ["train", "--preset", "smoke", "--image-size", "32", "--epochs", "1", "--steps", "1", "--device", "cpu"]
QUICK = [*SMOKE, "--val-episodes", "2", "--test-episodes", "2", "--test-queries", "2", "--no-progress"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Weights of a small network for 7 classes."""
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pt"
    torch.save(models.mobilenet_v3_small(num_classes=7).state_dict(), path)
    return path


@pytest.mark.parametrize("method", ["protonet", "baseline++", "maml"])
def test_a_network_of_torchvision_is_trained(
    method: str, weights: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--method", method, "--network", "torchvision:mobilenet_v3_small", "--weights", str(weights)]
    assert main([*QUICK, *options, "--out", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run", device="cpu")
    assert run.preprocessing.mean == pytest.approx([0.449], abs=1e-3)  # of grey images as ImageNet's on average
    capsys.readouterr()
    moved = weights.rename(weights.with_suffix(".away"))  # it is not needed again
    try:
        test = ["--episodes", "2", "--device", "cpu"]
        assert main(["evaluate", "--run", str(tmp_path / "run"), *test]) == 0
        assert "novel classes of glyphs" in capsys.readouterr().out
    finally:
        moved.rename(weights)
    shades = {c: [torch.full((1, 40, 30), v, dtype=torch.uint8)] for c, v in (("dark", 10), ("light", 240))}
    found = run.learn(shades).predict([image for (image,) in shades.values()])
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(2))


def test_weights_are_those_of_the_file(weights: pathlib.Path) -> None:
    from rml_meta.cli.learners import build

    config = TrainConfig.PRESETS["smoke"].changed(
        network="torchvision:mobilenet_v3_small", weights=str(weights), image_size=32
    )
    held = torch.load(weights, weights_only=True)
    for name in ("protonet", "matchingnet"):
        method: Any = build(config.changed(method=name), 3, 9)
        body = method.backbone.body.state_dict()
        assert len(body) > 200
        assert all(torch.equal(value, held[key]) for key, value in body.items())
        state = method.fit_support(torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 1]))
        assert method.predict(state, torch.rand(2, 3, 32, 32)).shape[0] == 2


def test_a_network_of_timm_without_training(tmp_path: pathlib.Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    torch.manual_seed(0)
    extractor = timm.create_model("resnet10t", num_classes=0).eval()
    labels = torch.tensor([0, 0, 0, 1, 2])
    images = torch.rand(3, 3, 32, 32)[labels] + torch.rand(5, 3, 32, 32) / 20
    size = extractor.num_features
    with torch.no_grad():
        features = extractor(images).double()
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    unit = torch.nn.functional.normalize(features, dim=1)
    weights = (100 * (unit @ unit.T).clamp_min(0)).softmax(1)
    shares = torch.stack([weights[:, labels == c].sum(1) for c in range(3)], 1)
    by_hand = {
        ProtoNet(extractor): -(torch.cdist(features, means) ** 2),
        MatchingNet(extractor, size, contextual=False): shares.log(),
    }
    for method, expected in by_hand.items():
        logits = method.predict(method.fit_support(images, labels), images)
        torch.testing.assert_close(logits.double(), expected, rtol=1e-3, atol=1e-5)
    baseline = BaselinePP(extractor, size, classes=1)
    assert baseline.predict(baseline.fit_support(images, labels), images).shape == (5, 3)
    options = ["--method", "protonet", "--network", "timm:resnet10t", "--out", str(tmp_path / "run")]
    assert main([*QUICK, *options]) == 0


def test_refusals(weights: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="conv4 starts at random"):
        TrainConfig(weights=str(weights))
    with pytest.raises(UserError, match="relationnet compares feature maps"):
        TrainConfig(method="relationnet", network="timm:resnet10t")
    with pytest.raises(UserError, match="did you mean 'conv6'"):
        TrainConfig(network="conv5")
    wrong = ["--network", "torchvision:resnet18", "--weights", str(weights)]
    assert main([*QUICK, *wrong, "--out", str(weights.parent / "run")]) == 2
    assert "is not of torchvision:resnet18" in capsys.readouterr().err
