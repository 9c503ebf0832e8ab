"""Backbones of timm and torchvision by name, with weights from a file.

Nothing is downloaded: `weights` names a file that the user has.
"""

from __future__ import annotations

import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustvision_core.errors import CheckpointError, UserError, unknown_name

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WRAPPERS = ("module.", "model.", "encoder_q.")  # what training programs put before the names of a network's weights


class Backbone(nn.Module):
    """A network in two parts: images to features, features to logits.

    Args:
        body: (B, C, H, W) to (B, D).
        head: (B, D) to (B, K).
        repeat: Give the body three channels where images have one.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, repeat: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.repeat = body, head, repeat

    def features(self, images: Tensor) -> Tensor:
        """(B, D), what the head sees."""
        return self.body(images.expand(-1, 3, -1, -1) if self.repeat else images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))


@dataclass(frozen=True)
class External:
    """A network by name, ready to train.

    Attributes:
        network: Images to logits.
        mean: Of each channel on the scale 0..1, that its weights were trained with.
        std: As `mean`.
        said: What a person should know of the weights, or nothing.
    """

    network: Backbone
    mean: tuple[float, ...]
    std: tuple[float, ...]
    said: str


def build_external(name: str, channels: int, image_size: int, num_classes: int, weights: str = "") -> External:
    """The network `timm:NAME` or `torchvision:NAME` for images (B, channels, image_size, image_size).

    Args:
        name: With the library before the colon.
        channels: 1 or 3; grey images are repeated to three channels, so that weights of photos serve.
        image_size: Height and width in pixels.
        num_classes: K.
        weights: A file of weights (.pt, .pth, .safetensors); empty for random ones. A head for other classes is left
            out, and `said` says so.

    Raises:
        UserError: The library is not installed, has no such network, or the network does not take such images.
        CheckpointError: The file is no file of weights, or is of another network.
    """
    library, _, model = name.partition(":")
    whole = (_timm if library == "timm" else _torchvision)(model, num_classes)
    said = _load(whole, weights, name) if weights else ""
    network = _split(whole, num_classes, name, repeat=channels == 1)
    _try(network, channels, image_size, name)
    return External(network, *statistics_of(name, channels), said)


def statistics_of(name: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on the scale 0..1, that the published weights of a network go with.

    Args:
        name: As of `build_external`.
        channels: 1 or 3.

    Raises:
        UserError: As `build_external`, of the name.
    """
    library, _, model = name.partition(":")
    own = _known_to_timm(model).get_pretrained_cfg(model) if library == "timm" else None
    mean, std = (getattr(own, key, None) or usual for key, usual in zip(("mean", "std"), IMAGENET, strict=True))
    return ((sum(mean) / 3,), (sum(std) / 3,)) if channels == 1 else (tuple(mean), tuple(std))


def _known_to_timm(model: str) -> Any:
    """The library, which has such a network."""
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError('networks of timm need an extra: pip install "robustvision-core[timm]"') from error
    if not timm.is_model(model):
        raise unknown_name("network of timm", model, timm.list_models())
    return timm


def _timm(model: str, num_classes: int) -> nn.Module:
    return _known_to_timm(model).create_model(model, pretrained=False, num_classes=num_classes)


def _torchvision(model: str, num_classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise unknown_name("network of torchvision", model, known)
    return models.get_model(model, weights=None, num_classes=num_classes)


def _load(whole: nn.Module, path: str, name: str) -> str:
    """Load what fits; the sentence says which head was left out."""
    held = read_weights(path)
    own = whole.state_dict()
    other = [key for key, value in held.items() if key in own and own[key].shape != value.shape]
    fitting = {key: value for key, value in held.items() if key in own and key not in other}
    missing = sorted(own.keys() - fitting.keys() - set(other))
    head = {key for key in other if own[key].dim() <= 2}  # weights and biases of a linear layer
    if missing or set(other) - head or len({key.rpartition(".")[0] for key in head}) > 1:
        wrong = (missing + sorted(set(other) - head))[:3]
        raise CheckpointError(f"{path} is not of {name}: it has no fitting {', '.join(wrong) or sorted(head)[0]}")
    whole.load_state_dict(own | fitting)
    if not head:
        return f"{path}: all weights loaded"
    return f"{path}: weights loaded but for the head {sorted(head)[0].rpartition('.')[0]}, which is of other classes"


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a file of weights by name, without executing code: PyTorch's or safetensors.

    What training programs wrap them in (`state_dict`, `model`, a prefix of every name) is taken off.

    Raises:
        CheckpointError: It is missing or no file of weights.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f"no weights at {path}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]

            held: Any = load_file(file)
        else:
            held = torch.load(file, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as error:
        raise UserError(f'{path} needs an extra: pip install "robustvision-core[timm]"') from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is no file of weights ({_first_line(error)})") from error
    except Exception as error:  # safetensors raises its own kind
        raise CheckpointError(f"{path} is no file of weights ({_first_line(error)})") from error
    for key in ("state_dict", "model", "network"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()) or not held:
        raise CheckpointError(f"{path} holds no tensors by name")
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in held):
            held = {key.removeprefix(prefix): value for key, value in held.items()}
    return dict(held)


def _split(whole: nn.Module, num_classes: int, name: str, *, repeat: bool) -> Backbone:
    """The network with its last linear layer apart."""
    linear = [path for path, part in whole.named_modules() if isinstance(part, nn.Linear)]
    path = linear[-1] if linear else ""
    head = whole.get_submodule(path) if path else None
    if not isinstance(head, nn.Linear) or head.out_features != num_classes:
        raise UserError(f"{name} does not end in a linear layer for classes: choose another network")
    parent, _, leaf = path.rpartition(".")
    setattr(whole.get_submodule(parent), leaf, nn.Identity())
    return Backbone(whole, head, repeat)


def _try(network: Backbone, channels: int, image_size: int, name: str) -> None:
    """One forward pass: a network that does not take such images says so before any data is loaded."""
    training = network.training
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{name} does not take images of {image_size} pixels ({_first_line(error)}): give another image size"
        ) from error
    finally:
        network.train(training)
    if logits.shape != (1, network.head.out_features):
        raise UserError(f"{name} gives {tuple(logits.shape)} for one image, expected logits: choose another network")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
