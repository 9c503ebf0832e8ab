"""Image files to uint8 tensors."""

from __future__ import annotations

import io
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustvision_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

ORIENTATION = 0x0112  # the EXIF tag
DECODED = 1024  # images that are waited for together
SHOWN = 5  # broken images that an error names

Crop = Callable[[int, int], tuple[int, int]]
"""Free rows and columns (how far a window can move) -> its upper and left edge."""


def centre(rows: int, columns: int) -> tuple[int, int]:
    """The crop from the middle."""
    return round(rows / 2), round(columns / 2)


def decode(
    source: Any,
    name: str,
    *,
    grey: bool = False,
    size: int | None = None,
    resize: int | None = None,
    crop: Crop = centre,
) -> Tensor:
    """One image as (C, H, W) uint8, upright: its EXIF orientation is applied.

    Args:
        source: A path, the bytes of a file, or what gives them by `read_bytes()`.
        name: What to call it in errors.
        grey: One channel rather than RGB.
        size: Height and width of the window to cut; None keeps the whole image as it is.
        resize: Length that the shorter side is brought to before, bilinearly with antialiasing; None takes `size`.
        crop: Places the window.

    Raises:
        DataError: The file is missing, truncated or no image, or has grey pixels of 32 bits; the message holds `name`.
    """
    from PIL import Image

    try:
        with Image.open(_opened(source)) as opened:
            return decode_image(opened, name, grey=grey, size=size, resize=resize, crop=crop)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is truncated or no image: {error}") from error


def decode_image(
    opened: Image,
    name: str,
    *,
    grey: bool = False,
    size: int | None = None,
    resize: int | None = None,
    crop: Crop = centre,
) -> Tensor:
    """A PIL image as (C, H, W) uint8, upright as its EXIF orientation says; arguments as in `decode`."""
    image = _upright(_eight_bits(opened, name).convert("L" if grey else "RGB"), opened)
    if size is not None:
        image = _window(image, size, resize or size, crop)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def decode_all(
    sources: Sequence[Any],
    names: Sequence[str],
    about: str,
    *,
    grey: bool,
    size: int | None,
    empty: Callable[[tuple[int, ...]], Tensor] | None = None,
) -> Tensor:
    """Many images of one size as (N, C, H, W) uint8, by a pool of threads; a bar on a terminal shows the memory.

    Args:
        sources: Each as for `decode`.
        names: What to call each in errors.
        about: What to call them together.
        grey: As in `decode`.
        size: As in `decode`; None demands that all have the size of the first.
        empty: Makes the tensor of a shape to decode into; None makes one in memory.

    Raises:
        DataError: Some cannot be decoded, the message names up to five; or there are none; or their sizes differ and
            `size` is None.
    """
    if not len(sources):
        raise DataError(f"{about} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    first, head = _first_image(sources, names, grey, size)
    shape = (len(sources), *head.shape)
    images = empty(shape) if empty else torch.empty(shape, dtype=torch.uint8)
    broken: list[str] = []

    def place(row: int) -> None:
        try:
            image = decode(sources[row], names[row], grey=grey, size=size)
        except DataError as error:
            broken.append(str(error))
            return
        if image.shape != head.shape:
            raise DataError(
                f"{names[row]} has shape {tuple(image.shape)}, {first} {tuple(head.shape)}: give a size to bring "
                "every image to"
            )
        images[row] = image

    _each_row(place, images, about)
    if broken:
        raise DataError(_together(sorted(broken)))
    return images


def _each_row(place: Callable[[int], None], images: Tensor, about: str) -> None:
    """Call `place` for every row of `images`, by a pool of threads."""
    from tqdm import tqdm

    shown = tqdm(total=len(images), desc=f"decoding {about}", disable=not sys.stderr.isatty(), leave=False)
    with shown, ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(images), DECODED):  # a task for each of millions would fill the memory itself
            rows = range(start, min(start + DECODED, len(images)))
            for _ in pool.map(place, rows):
                shown.update()
            filled = images.nbytes * rows.stop / len(images)
            shown.set_postfix_str(f"{filled / 2**30:.2f} of {images.nbytes / 2**30:.2f} GiB")


def _first_image(sources: Sequence[Any], names: Sequence[str], grey: bool, size: int | None) -> tuple[str, Tensor]:
    """Name and pixels of the first image that can be read."""
    broken: list[str] = []
    for source, name in zip(sources, names, strict=True):
        try:
            return name, decode(source, name, grey=grey, size=size)
        except DataError as error:
            broken.append(str(error))
    raise DataError(_together(broken))


def _together(broken: Sequence[str]) -> str:
    """One message of the errors of some images."""
    if len(broken) == 1:
        return broken[0]
    more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    return f"{len(broken)} images cannot be read, take them out: " + "; ".join(broken[:SHOWN]) + more


def _opened(source: Any) -> Any:
    """What Pillow opens."""
    if isinstance(source, str | pathlib.Path):
        return source
    return io.BytesIO(source if isinstance(source, bytes) else source.read_bytes())


def usable_cores() -> int:
    """How many cores this process may use, where the system tells; else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _upright(image: Image, opened: Image) -> Image:
    """`image` rotated and flipped as the orientation in the EXIF data of `opened` says; broken data say nothing."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        way = ways.get(opened.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever a broken block makes Pillow raise
        return image
    return image if way is None else image.transpose(way)


def _eight_bits(image: Image, name: str) -> Image:
    """A grey image of 16 bits brought to 8, which Pillow's own conversion would clip to white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        import numpy as np
        from PIL.Image import fromarray

        return fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(f"{name} has pixels of 32 bits, whose range nobody knows: save it with 8 or 16 bits")
    return image


def _window(image: Image, size: int, resize: int, crop: Crop) -> Image:
    from PIL.Image import Resampling

    scale = resize / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Resampling.BILINEAR)
    top, left = crop(height - size, width - size)
    return image.crop((left, top, left + size, top + size))
