"""Augmentations by name."""

from __future__ import annotations

from functools import partial

from pseudolabel_da.reading.augmentation import Augment, strong_augment
from pseudolabel_da.reading.photos import photo_augment

AUGMENTS: dict[str, Augment | None] = {
    "none": None,
    "strong": strong_augment,
    "recolor": partial(strong_augment, shift=0, blend=0.0),
    "jitter": partial(strong_augment, shift=0, invert=0.0, blend=0.0),
    "photo": photo_augment,
}
"""Augmentations by name: `recolor` inverts and jitters contrast and brightness, `jitter` does not invert, `photo` takes
parts of images and changes them as photos differ, at any size; the others suit digits and drawings."""

MILD: Augment = partial(
    strong_augment, shift=1, invert=0.0, contrast=(0.6, 1.2), brightness=(-0.3, 0.3), blend=0.0, by_channel=0.0
)
"""Changes that a person would not notice the class by, for checking labels."""
