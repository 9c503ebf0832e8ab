"""A method that has seen its support set, as an ordinary network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from robustvision_core.predict import Predictor, Preprocessing
from torch import Tensor, nn

from rml_meta.methods import FewShotMethod
from rml_meta.methods.base import AdaptedTasks, GradientMethod
from rml_meta.methods.embedding import EmbeddingMethod


class Features(nn.Module):
    """Normalised images to features.

    Args:
        backbone: Images (B, C, H, W) to features or maps.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """(B, D)."""
        return self.backbone(images).flatten(1)


class Compared(nn.Module):
    """Normalised images to the logits of a method that compares embeddings.

    Args:
        method: The method.
        state: What it keeps of the support set.
    """

    def __init__(self, method: EmbeddingMethod, state: Any) -> None:
        super().__init__()
        self.method, self.state = method, state

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, N) of images (B, C, H, W)."""
        return self.method.compare(self.state, self.method.backbone(images))


class Adapted(nn.Module):
    """A model with the parameters that a support set adapted it to, and that set's statistics in its batch norms.

    Args:
        method: The method; its model stays as it is.
        state: What it keeps of the one support set.
        ways: How many of the outputs have a class.
    """

    def __init__(self, method: GradientMethod, state: AdaptedTasks, ways: int) -> None:
        super().__init__()
        self.model, self.ways = copy.deepcopy(method.model), ways
        (task,) = state.tasks
        tensors = {**method.problem().at_step(task.slow, task.step), **task.fast}
        self.model.load_state_dict(tensors, strict=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, N) of images (B, C, H, W)."""
        return self.model(images)[:, : self.ways]


def taught(
    method: FewShotMethod, prepared: Preprocessing, images: Tensor, labels: Tensor, classes: Sequence[str]
) -> Predictor:
    """A predictor of a method that has seen the support images (S, C, H, W) uint8 with labels (S,).

    Each image is judged by itself: a method that would normalise queries together takes the statistics of the support
    images instead.
    """
    method.transductive = False
    state = method.eval().fit_support(prepared.normalise(images), labels)
    if isinstance(method, GradientMethod):
        network: nn.Module = Adapted(method, state, len(classes))
    else:
        assert isinstance(method, EmbeddingMethod)
        network = Compared(method, state)
    return Predictor(network, prepared, classes, device=images.device)
