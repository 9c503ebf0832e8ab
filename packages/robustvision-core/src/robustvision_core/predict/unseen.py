"""Images of a set as files, and what a predictor makes of them: how a demonstration ends."""

from __future__ import annotations

import csv
import pathlib
import shutil

import torch

from robustvision_core.data.image_set import ImageSet
from robustvision_core.predict.options import PredictOptions
from robustvision_core.predict.predictor import Predictor
from robustvision_core.predict.write import write_predictions


def predict_unseen(predictor: Predictor, images: ImageSet, folder: pathlib.Path, count: int = 24) -> str:
    """Write some images to `folder/new` as files, predict on these as on anybody's, and say how it went.

    Args:
        predictor: Whose classes are among those of `images`.
        images: What it was not trained on, grey or RGB.
        folder: For `new/`, and `predictions/` with the table and the sheet.
        count: How many, evenly spaced.

    Returns:
        One line, which names the sheet.
    """
    chosen = images.take(torch.linspace(0, len(images) - 1, min(count, len(images))).long())
    new, out = folder / "new", folder / "predictions"
    shutil.rmtree(new, ignore_errors=True)
    truth = _write(chosen, new)
    write_predictions(predictor, PredictOptions(run="", images=str(new), out=str(out), progress=False), quiet=True)
    with open(out / "predictions.csv", newline="") as table:
        right = sum(truth[pathlib.Path(row["file"])] == row["label"] for row in csv.DictReader(table))
    return f"predictions for {len(truth)} images not trained on, {right} of them right: {out / 'predictions.png'}"


def _write(images: ImageSet, folder: pathlib.Path) -> dict[pathlib.Path, str]:
    """One PNG an image; their classes by path."""
    from PIL import Image

    folder.mkdir(parents=True)
    truth = {}
    for number, (pixels, label) in enumerate(zip(images.images.cpu(), images.labels.tolist(), strict=True)):
        path = folder / f"{number:02d}.png"
        array = pixels.permute(1, 2, 0).numpy()
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(path)
        truth[path] = images.classes[label]
    return truth
