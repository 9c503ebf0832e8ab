"""Networks of timm and torchvision: any name, any classes, weights from files."""

from __future__ import annotations

import pathlib

import pytest
import torch
from robustvision_core.errors import CheckpointError, UserError
from robustvision_core.networks.external import build_external, read_weights
from robustvision_core.networks.names import is_external

NAMES = ["torchvision:resnet18", "torchvision:mobilenet_v3_small", "timm:resnet10t", "timm:mobilenetv3_small_050"]


def needs(name: str) -> None:
    pytest.importorskip(name.partition(":")[0], reason="needs an extra of the core: timm")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_are_the_head_of_the_features(name: str, channels: int) -> None:
    needs(name)
    network = build_external(name, channels, 32, 7).network.eval()
    images = torch.randn(2, channels, 32, 32)
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (2, network.head.in_features)
        torch.testing.assert_close(network(images), features @ network.head.weight.T + network.head.bias)
    if channels == 1:
        with torch.no_grad():
            torch.testing.assert_close(network.body(images.repeat(1, 3, 1, 1)), features)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_file_are_loaded_whole(name: str, suffix: str, tmp_path: pathlib.Path) -> None:
    needs("timm" if suffix == ".safetensors" else name)
    whole = library_model(name, 5)
    save(whole.state_dict(), tmp_path / f"own{suffix}")
    made = build_external(name, 3, 32, 5, str(tmp_path / f"own{suffix}"))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(made.network.eval()(images), whole.eval()(images))
    assert made.said.endswith("all weights loaded")


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t"])
def test_a_head_of_other_classes_is_replaced_and_said(name: str, tmp_path: pathlib.Path) -> None:
    needs(name)
    whole = library_model(name, 9)
    state = {"state_dict": {f"module.{key}": value for key, value in whole.state_dict().items()}}
    torch.save(state, tmp_path / "own.pth")
    made = build_external(name, 3, 32, 4, str(tmp_path / "own.pth"))
    assert "but for the head fc" in made.said
    assert made.network.head.out_features == 4
    body = made.network.body.state_dict()
    assert all(torch.equal(value, body[key]) for key, value in whole.state_dict().items() if not key.startswith("fc"))


def test_weights_of_another_network_are_refused(tmp_path: pathlib.Path) -> None:
    torch.save(library_model("torchvision:resnet34", 4).state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no fitting classifier"):
        build_external("torchvision:mobilenet_v3_small", 3, 32, 4, str(tmp_path / "other.pth"))


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04K\x07."])
def test_files_that_hold_no_weights(content: bytes, tmp_path: pathlib.Path) -> None:
    (tmp_path / "own.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="is no file of weights"):
        read_weights(str(tmp_path / "own.pth"))
    with pytest.raises(CheckpointError, match="no weights at"):
        read_weights(str(tmp_path / "absent.pth"))


def test_names_and_sizes_are_refused_in_words() -> None:
    assert is_external("timm:resnet18")
    assert not is_external("cnn")
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build_external("torchvision:resnet_18", 3, 32, 4)
    with pytest.raises(UserError, match="does not take images of 32 pixels"):
        build_external("torchvision:vit_b_16", 3, 32, 4)


def test_normalisation_is_the_models_own() -> None:
    made = build_external("torchvision:resnet18", 3, 32, 4)
    assert made.mean == (0.485, 0.456, 0.406)
    assert build_external("torchvision:resnet18", 1, 32, 4).std == pytest.approx(((0.229 + 0.224 + 0.225) / 3,))


def library_model(name: str, num_classes: int) -> torch.nn.Module:
    """The model as its library makes it."""
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        return timm.create_model(model, num_classes=num_classes)
    from torchvision.models import get_model

    return get_model(model, num_classes=num_classes)


def save(state: dict[str, torch.Tensor], path: pathlib.Path) -> None:
    """Write weights as a user has them."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path)
