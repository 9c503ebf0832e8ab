"""Features of a whole set, computed once and drawn from by index."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rml_meta.adaptation.norms import evaluation_mode
from rml_meta.episode import Episode


class FeatureCache:
    """Features of every image under a frozen backbone.

    A method on `nn.Identity()` then evaluates episodes without an image passing a network twice.

    Args:
        features: (N, ...) of the N images of a set, in its order.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features

    @classmethod
    def compute(cls, backbone: nn.Module, images: Tensor, batch_size: int = 256) -> FeatureCache:
        """Features of normalised images (N, ...), in evaluation mode, in batches on the backbone's device.

        A backbone without parameters takes the images where they are.
        """
        device = next((p.device for p in backbone.parameters()), images.device)
        with torch.no_grad(), evaluation_mode(backbone):
            return cls(torch.cat([backbone(part.to(device)) for part in images.split(batch_size)]))

    def episode(self, support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor) -> Episode:
        """The episode of images by index, `support` (*T, S) and `query` (*T, Q), with their labels."""
        support_x, query_x = (self.features[index.to(self.features.device)] for index in (support, query))
        return Episode(support_x, support_y.to(support_x.device), query_x, query_y.to(query_x.device))
