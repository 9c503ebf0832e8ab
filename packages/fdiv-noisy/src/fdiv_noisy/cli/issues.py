"""`fdiv-noisy issues`: which labels of a data set are wrong, and what they should be."""

from __future__ import annotations

import pathlib
import sys

import torch
from robustvision_core.data import ImageSet, in_files, list_files
from robustvision_core.errors import DataError, UserError
from robustvision_core.run import plots
from robustvision_core.run.files import write_csv
from robustvision_core.run.runtime import Runtime
from torch import Tensor

from fdiv_noisy.cli.cleaned import check_formats, write_cleaned
from fdiv_noisy.cli.criteria import posteriors
from fdiv_noisy.cli.data import clean_images, noisy_labels
from fdiv_noisy.cli.options import IssuesConfig
from fdiv_noisy.estimation.issues import LabelIssues, label_issues
from fdiv_noisy.estimation.structure import UNLEARNED, select_structure

SHOWN = 40
DOUBTFUL = (
    "a network that hardly predicts the labels may have made these files worse than the labels as they are: give "
    "--probs of a better one, look through issues.png, and compare with training on the labels as they are"
)


def find_issues(config: IssuesConfig) -> None:
    """Write `issues.csv`, the likeliest wrong label first, and a sheet of the worst."""
    check_formats(config)
    train_config = config.train_config(seed=config.seed, network=config.network, progress=config.progress)
    with Runtime.session(config.device, seed=config.seed) as runtime:
        clean = clean_images(train_config, "train")
        samples = clean.with_labels(noisy_labels(train_config, clean))
        probs = read_probs(config.probs, samples) if config.probs else posteriors(train_config, samples, runtime)
    try:
        report = select_structure(probs, samples.labels, names=samples.classes)
        found = label_issues(probs, samples.labels)
    except ValueError as error:
        raise UserError(f"the labels of {config.data} cannot be judged: {error}") from error
    folder = pathlib.Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    names = sample_names(config, samples)
    write_table(folder / "issues.csv", found, samples, names)
    draw(folder / "issues.png", found, samples)
    expected = float(found.wrong.sum())
    sys.stdout.write(f"{report}\nabout {expected:.0f} labels to look at first: {folder / 'issues.csv'}\n")
    for sentence in write_cleaned(config, found, samples, names):
        sys.stdout.write(f"{sentence}\n")
    if UNLEARNED in report.warnings and (config.relabel or config.drop):
        sys.stdout.write(f"{DOUBTFUL}\n")


def read_probs(path: str, samples: ImageSet) -> Tensor:
    """Out-of-fold posteriors (N, K) from a .pt or .npy file."""
    try:
        if path.endswith(".npy"):
            import numpy

            probs = torch.from_numpy(numpy.load(path, allow_pickle=False)).float()
        else:
            probs = torch.load(path, map_location="cpu", weights_only=True).float()
    except Exception as error:
        raise DataError(f"--probs {path} holds no probabilities: {error}") from error
    expected = (len(samples), samples.num_classes)
    if tuple(probs.shape) != expected:
        raise DataError(f"--probs {path} has shape {tuple(probs.shape)}, the data needs {expected}")
    return probs


def sample_names(config: IssuesConfig, samples: ImageSet) -> list[str]:
    """The file of each sample, or its place in a table or shard; else its number in the training set."""
    if in_files(config.data):
        return [str(file) for file in list_files(config.data, "train", config.data_root or None).paths]
    return [str(number) for number in samples.ids.tolist()]


def write_table(path: pathlib.Path, found: LabelIssues, samples: ImageSet, names: list[str]) -> None:
    """One line a sample, the likeliest wrong label first."""
    rows = [
        [names[row], *_classes(found, samples, row), f"{float(found.wrong[row]):.6f}"] for row in found.order().tolist()
    ]
    write_csv(path, [["sample", "label", "suggested", "wrong"], *rows])


def _classes(found: LabelIssues, samples: ImageSet, row: int) -> tuple[str, str]:
    """What a sample is called, and what it should be."""
    return samples.classes[int(samples.labels[row])], samples.classes[int(found.suggested[row])]


def draw(path: pathlib.Path, found: LabelIssues, samples: ImageSet) -> None:
    """The worst labels with what they should be."""
    rows = found.order()[:SHOWN].tolist()
    titles = ["{}\n{}?".format(*_classes(found, samples, row)) for row in rows]
    plots.sheet(samples.images[rows], titles, path, columns=8, width=1.25, height=1.4, fontsize=7)
