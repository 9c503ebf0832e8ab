"""Predictions as files: a table, and a picture of some of them."""

from __future__ import annotations

import contextlib
import csv
import glob
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TextIO, TypeVar

from robustvision_core.data.reading.decode import IMAGE_SUFFIXES
from robustvision_core.errors import DataError
from robustvision_core.predict.options import PredictOptions
from robustvision_core.predict.predictor import Predictions, Predictor
from robustvision_core.run import plots
from robustvision_core.run.files import atomic_write

SHEET = 24  # images in the picture


class Part(Protocol):
    """What was found in a batch of images."""

    @property
    def files(self) -> Sequence[Any]:
        """Path of each."""
        ...

    @property
    def broken(self) -> Mapping[str, str]:
        """Files that could not be read, and why."""
        ...


P = TypeVar("P", bound=Part)


def find_images(spec: str) -> list[pathlib.Path]:
    """The images that an option names: a file, a folder with all below it, or a pattern; sorted, without hidden files.

    Raises:
        DataError: There are none.
    """
    path = pathlib.Path(spec).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.rglob("*") if _is_image(file.relative_to(path))]
    else:
        found = [pathlib.Path(name) for name in glob.glob(str(path), recursive=True)]
    found = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    if not found:
        what = f"no images ({', '.join(IMAGE_SUFFIXES)})" if path.is_dir() else "no file, folder or match of a pattern"
        raise DataError(f"{spec}: there is {what} there")
    return found


def write_predictions(predictor: Predictor, options: PredictOptions, *, quiet: bool = False) -> pathlib.Path:
    """Predict on the images that `options` names; returns the folder with `predictions.csv` and `predictions.png`.

    The table has one row an image: file, label by name, confidence, and what the method knows besides. Images that
    cannot be read are named on the error stream and left out. After Ctrl-C the table holds what was done until then.
    With `quiet` the files are not named at the end.

    Raises:
        DataError: There are no images, none can be read, or, with `strict`, one cannot.
    """
    files = find_images(options.images)
    out = pathlib.Path(options.out)
    shown = set(range(0, len(files), max(1, -(-len(files) // SHEET))))
    sheet: list[tuple[pathlib.Path, str, float]] = []
    done = broken = 0
    with _table(out / "predictions.csv") as table:
        parts = predictor.stream(files, options.batch_size, strict=options.strict)
        for part in with_progress(parts, len(files), options):
            _write_rows(table, part, header=done == 0 and bool(len(part.files)))
            for place, (file, name, confidence) in enumerate(_rows(part), done + broken):
                if place in shown:
                    sheet.append((file, name, confidence))
            done, broken = done + len(part.files), broken + len(part.broken)
    if not done:
        raise DataError(f"{options.images}: none of {broken} images can be read")
    _draw(sheet, predictor, out / "predictions.png")
    if not quiet:
        left_out = f", {broken} left out" if broken else ""
        sys.stdout.write(f"{done} images{left_out}: {out / 'predictions.csv'}, {out / 'predictions.png'}\n")
    return out


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


@contextlib.contextmanager
def _table(path: pathlib.Path) -> Iterator[TextIO]:
    """A CSV file to write to; it gets its name at the end, after Ctrl-C too."""
    interrupted: KeyboardInterrupt | None = None
    # surrogateescape: a file name need not be UTF-8
    with atomic_write(path) as temporary, open(temporary, "w", newline="", errors="surrogateescape") as table:
        try:
            yield table
        except KeyboardInterrupt as stop:
            interrupted = stop
    if interrupted is not None:
        sys.stderr.write(f"{path} holds what was done until then\n")
        raise interrupted


def _rows(part: Predictions) -> Iterator[tuple[Any, str, float]]:
    yield from zip(part.files, part.names, part.confidence.tolist(), strict=True)


def _write_rows(table: TextIO, part: Predictions, *, header: bool) -> None:
    writer = csv.writer(table)
    if header:
        writer.writerow(["file", "label", "confidence", *part.extras])
    columns = [[f"{value:.6g}" for value in values.tolist()] for values in part.extras.values()]
    for number, (file, name, confidence) in enumerate(_rows(part)):
        writer.writerow([os.fspath(file), name, f"{confidence:.4f}", *(column[number] for column in columns)])


def with_progress(parts: Iterator[P], total: int, options: PredictOptions) -> Iterator[P]:
    """The parts, each with `files` and `broken`; names the broken images, and shows a bar on a terminal."""
    from tqdm import tqdm

    shown = options.progress and sys.stderr.isatty()
    with tqdm(total=total, desc="predicting", unit="image", disable=not shown) as bar:
        for part in parts:
            yield part
            for text in part.broken.values():
                sys.stderr.write(f"left out: {text}\n")
            bar.update(len(part.files) + len(part.broken))


def _draw(sheet: list[tuple[pathlib.Path, str, float]], predictor: Predictor, path: pathlib.Path) -> None:
    images = (predictor.preprocessing.read(file) for file, _, _ in sheet)
    plots.sheet(images, [f"{name} {100 * confidence:.0f} %" for _, name, confidence in sheet], path)
