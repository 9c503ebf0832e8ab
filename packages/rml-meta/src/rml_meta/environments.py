r"""Environments of image tasks: how the same classes look elsewhere.

An environment maker takes images (E, M, C, H, W) in [0, 1], of M images in each of E environments, labels (E, M) and
a generator on their device, and gives the images as each environment shows them. It draws from the generator alone,
so that a generator seeded by (seed, episode) makes the episode what it is. Support and query images of a task go
through it together: what is drawn for an environment holds for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rml_meta.penalties import scale_gradients

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""Images (M, C, H, W) in [0, 1] and a generator on their device -> images of the same shape in [0, 1]."""

PALETTE = ((1.0, 0.1, 0.1), (0.1, 1.0, 0.1), (0.2, 0.3, 1.0), (1.0, 1.0, 0.1), (1.0, 0.1, 1.0))
"""Five colours that are told apart easily, (r, g, b) in [0, 1]."""


class TransformEnvironments:
    """Each environment shows its images through a transform of its own.

    Args:
        names: One of `TRANSFORMS` an environment.

    Raises:
        ValueError: There is no such transform.

    Example:
        >>> make = TransformEnvironments(["identity", "invert"])
        >>> images = torch.rand(2, 6, 1, 8, 8)
        >>> shown = make(images, torch.zeros(2, 6).long(), torch.Generator())
    """

    def __init__(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in TRANSFORMS]
        if unknown or not names:
            raise ValueError(f"unknown transforms {unknown}: expected one or more of {', '.join(TRANSFORMS)}")
        self.names = tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Images (E, M, C, H, W) of the E environments."""
        _check_count(images, len(self))
        shown = [TRANSFORMS[name](part, generator) for name, part in zip(self.names, images, strict=True)]
        return torch.stack(shown)


class ColourEnvironments:
    r"""Each environment colours images by their label, more or less often.

    An image gets the colour $\pi$(label) with its environment's probability, else one of the other colours. With a map
    $\pi$ drawn anew for each environment, what the colour says about the label differs between the environments of one
    episode: the shift in which robust meta-learning was found to help. A shared map is the textbook one, where it did
    not.

    Args:
        correlations: Probability an environment.
        shared_map: One map $\pi$ for all environments of an episode.
        palette: (r, g, b) of at least as many colours as there are classes.

    Raises:
        ValueError: A probability is out of range, or there are fewer than two colours. A task has more classes than
            there are colours: an IndexError or RuntimeError of torch, when it is coloured.
    """

    def __init__(
        self,
        correlations: Sequence[float] = (0.9, 0.8),
        *,
        shared_map: bool = False,
        palette: Sequence[Sequence[float]] = PALETTE,
    ) -> None:
        if not correlations or not all(0 <= p <= 1 for p in correlations):
            raise ValueError(f"correlations must be probabilities, one an environment, got {tuple(correlations)}")
        if len(palette) < 2 or any(len(colour) != 3 for colour in palette):
            raise ValueError(f"palette needs two or more (r, g, b), got {palette}")
        self.correlations, self.shared_map = tuple(correlations), shared_map
        self.palette = torch.tensor(palette)

    def __len__(self) -> int:
        return len(self.correlations)

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Coloured images (E, M, 3, H, W) of grey or colour images (E, M, C, H, W)."""
        _check_count(images, len(self))
        colours = self.colours(labels, generator)
        return colourise(images, self.palette.to(images)[colours])

    def colours(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Number of the colour (E, M) of each image."""
        count, device = len(self.palette), labels.device
        rows = 1 if self.shared_map else len(self)
        keys = torch.rand(rows, count, generator=generator, device=device)
        colour_of = keys.argsort(-1).expand(len(self), -1)
        own = colour_of.gather(1, labels)
        share = torch.tensor(self.correlations, device=device)[:, None]
        keep = torch.rand(labels.shape, generator=generator, device=device) < share
        other = torch.randint(1, count, labels.shape, generator=generator, device=device)
        return torch.where(keep, own, (own + other) % count)


def colourise(images: Tensor, colours: Tensor) -> Tensor:
    """Images (*B, C, H, W) in [0, 1] as shades of one colour (*B, 3) each: (*B, 3, H, W)."""
    return images.mean(-3, keepdim=True) * colours[..., None, None]


def identity(images: Tensor, generator: torch.Generator) -> Tensor:
    """As they are."""
    return images


def invert(images: Tensor, generator: torch.Generator) -> Tensor:
    """Dark for light."""
    return 1 - images


def grey(images: Tensor, generator: torch.Generator) -> Tensor:
    """Without colour, by the luma weights of ITU-R BT.601; images of another number of channels by their mean."""
    if images.shape[-3] != 3:
        return images.mean(-3, keepdim=True).expand_as(images)
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (images * weights).sum(-3, keepdim=True).expand_as(images)


def blur(images: Tensor, generator: torch.Generator, sigma: float = 1.5) -> Tensor:
    """Gaussian blur of `sigma` pixels, edges repeated."""
    radius = math.ceil(3 * sigma)
    at = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    # one channel at a time, and one axis after the other
    flat = F.pad(images.reshape(-1, 1, *images.shape[-2:]), (radius,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return blurred.reshape(images.shape).clamp(0, 1)


def noise(images: Tensor, generator: torch.Generator, sigma: float = 0.35) -> Tensor:
    """Gaussian noise of standard deviation `sigma`, cut to [0, 1]."""
    drawn = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return (images + sigma * drawn).clamp(0, 1)


def contrast(images: Tensor, generator: torch.Generator, factor: float = 0.3) -> Tensor:
    """Contrast reduced to `factor` around each image's mean."""
    mean = images.mean((-3, -2, -1), keepdim=True)
    return mean + factor * (images - mean)


def rotate90(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotated by 90 degrees, counterclockwise."""
    return images.rot90(1, (-2, -1))


def rotate180(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotated by 180 degrees."""
    return images.rot90(2, (-2, -1))


def rotate270(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotated by 270 degrees, counterclockwise."""
    return images.rot90(3, (-2, -1))


def jitter(images: Tensor, generator: torch.Generator, strength: float = 0.5) -> Tensor:
    """Each channel of each image times a factor of its own in 1 ± `strength`, cut to [0, 1]."""
    drawn = torch.rand(*images.shape[:-2], 1, 1, generator=generator, device=images.device, dtype=images.dtype)
    return (images * (1 + strength * (2 * drawn - 1))).clamp(0, 1)


def texture(images: Tensor, generator: torch.Generator, cells: int = 7) -> Tensor:
    """A random pattern of smooth patches behind the dark parts: each pixel is the lighter of image and pattern."""
    drawn = torch.rand(
        len(images), images.shape[-3], cells, cells, generator=generator, device=images.device, dtype=images.dtype
    )
    pattern = F.interpolate(drawn, images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.maximum(images, 0.6 * pattern)


TRANSFORMS: dict[str, Transform] = {
    "identity": identity,
    "invert": invert,
    "grey": grey,
    "blur": blur,
    "noise": noise,
    "contrast": contrast,
    "rotate90": rotate90,
    "rotate180": rotate180,
    "rotate270": rotate270,
    "jitter": jitter,
    "texture": texture,
}
"""Transforms by name; each keeps shape and range."""


def infer_environments(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Split samples (*B, n) in the two environments that a classifier is least invariant over (EIIL).

    Creager et al. (2021) search by gradient ascent for soft assignments q with the greatest $\sum_e (\frac1n \sum_n
    q_e(n)\, g_n)^2$, g the derivative of each sample's loss in a factor of its logits. That is convex in q, so it is
    greatest at a corner, and there by the sign of g: no search is needed, and the answer is exact.

    Args:
        logits: (*B, n, N) of a reference classifier that was trained without environments.
        labels: (*B, n).

    Returns:
        (*B, n) int64: 1 where the logits are too large for the sample (it is wrong, on balance), else 0.
    """
    return (scale_gradients(logits, labels) > 0).long()


def _check_count(images: Tensor, environments: int) -> None:
    if images.dim() != 5 or len(images) != environments:
        raise ValueError(
            f"expected images (E, M, C, H, W) of {environments} environments, got shape {tuple(images.shape)}"
        )
