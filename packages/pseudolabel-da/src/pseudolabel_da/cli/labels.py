"""The pseudo-labels of a run as a table."""

from __future__ import annotations

import pathlib

from robustvision_core.run.files import write_csv

from pseudolabel_da.algorithm.pool import PseudoLabelPool
from pseudolabel_da.cli.data import AdaptationData

HEADER = ("file", "label", "confidence", "period")


def write_labels(pool: PseudoLabelPool, data: AdaptationData, folder: pathlib.Path) -> pathlib.Path:
    """Write `pseudo_labels.csv`: the target samples that hold a label, by file, in their order.

    The file is its path, or the name of the data set and the sample's number where it has no files of its own; the
    label is the class by name, with the confidence it was given with, in the period that gave it.
    """
    path, rows = folder / "pseudo_labels.csv", pool.rows()
    columns = (x[rows].tolist() for x in (pool.labels, pool.confidence, pool.given))
    listed = [
        (data.file(row), data.classes[label], f"{confidence:.6f}", period)
        for row, label, confidence, period in zip(rows.tolist(), *columns, strict=True)
    ]
    write_csv(path, [HEADER, *listed])
    return path
