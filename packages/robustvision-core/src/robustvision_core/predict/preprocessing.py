"""From an image as it lies on disk to what a network was trained on."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from robustvision_core.data.batches.statistics import normalise
from robustvision_core.data.reading.decode import decode, decode_image
from robustvision_core.errors import CheckpointError, DataError


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared: the shorter side resized to `size`, the middle square kept, then normalised.

    Attributes:
        size: Height and width in pixels.
        channels: 1 for grey, 3 for RGB.
        mean: Of each channel on the scale 0..1.
        std: As `mean`, positive.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, shape: Sequence[int], mean: Tensor, std: Tensor) -> Preprocessing:
        """That of square images of `shape` (C, H, W), with `mean` and `std` (C,)."""
        channels, height, width = shape
        if height != width:
            raise DataError(f"images have {height}x{width} pixels: prediction takes square ones")
        if channels not in (1, 3):
            raise DataError(f"images have {channels} channels: prediction takes 1 (grey) or 3 (RGB)")
        return cls(height, channels, tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()))

    @classmethod
    def from_plain(cls, held: Mapping[str, Any], where: str) -> Preprocessing:
        """What `asdict` made and JSON or a checkpoint gave back."""
        try:
            return cls(int(held["size"]), int(held["channels"]), tuple(held["mean"]), tuple(held["std"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where} holds no usable preprocessing: {error}") from error

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def read(self, source: Any, name: str = "") -> Tensor:
        """One image, of any size, as (C, size, size) uint8.

        Args:
            source: A path, a PIL image, a NumPy array (H, W) or (H, W, C) uint8, or a tensor (C, H, W) uint8.
            name: What to call it in errors.

        Raises:
            DataError: It is no image, or of another type.
        """
        grey = self.channels == 1
        if isinstance(source, str | pathlib.Path):
            return decode(pathlib.Path(source), name or str(source), grey=grey, size=self.size)
        return decode_image(as_pil(source, name or "image"), name or "image", grey=grey, size=self.size)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, size, size) uint8 to what the network takes, float32."""
        if images.dtype != torch.uint8 or images.shape[1:] != (self.channels, self.size, self.size):
            expected = f"(B, {self.channels}, {self.size}, {self.size}) uint8"
            raise DataError(f"expected {expected}, got {tuple(images.shape)} {images.dtype}")
        mean, std = (torch.tensor(value, device=images.device) for value in (self.mean, self.std))
        return normalise(images, mean, std)


def read_those_that_can(
    prepared: Preprocessing, sources: Sequence[Any], *, strict: bool = False
) -> tuple[list[int], Tensor]:
    """The numbers of those of N sources that can be read, and their images (M, C, size, size) uint8.

    Args:
        prepared: How they are read.
        sources: Each as of `Preprocessing.read`.
        strict: Raise at one that cannot be read; else it is named on the error stream.

    Raises:
        DataError: One cannot be read and `strict` is asked, or none can.
    """
    kept, images = [], []
    for number, source in enumerate(sources):
        try:
            images.append(prepared.read(source))
            kept.append(number)
        except DataError as error:
            if strict:
                raise
            sys.stderr.write(f"left out: {error}\n")
    if not kept:
        raise DataError(f"none of {len(sources)} images can be read")
    return kept, torch.stack(images)


def as_pil(source: Any, name: str) -> Any:
    """A PIL image of an array (H, W), (H, W, 1 or 3 or 4) or tensor (1 or 3, H, W), both uint8, or of itself.

    Raises:
        DataError: It is something else.
    """
    from PIL import Image

    if isinstance(source, Image.Image):
        return source
    if isinstance(source, Tensor):
        source = source.detach().cpu().permute(1, 2, 0).numpy() if source.dim() == 3 else source.detach().cpu().numpy()
    shape, kind = getattr(source, "shape", None), str(getattr(source, "dtype", type(source).__name__))
    if shape is None or kind != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise DataError(
            f"{name}: give a path, a PIL image, an array (H, W, C) or a tensor (C, H, W), both uint8; got {kind} "
            f"{tuple(shape) if shape is not None else ''}".rstrip()
        )
    return Image.fromarray(source[..., 0] if len(shape) == 3 and shape[2] == 1 else source)
