"""`rml-meta inspect`: before training, whether the environments are such as robust meta-learning helps with."""

from __future__ import annotations

import sys

from robustvision_core.data import EpisodeSampler
from robustvision_core.errors import UserError
from robustvision_core.run.runtime import Runtime

from rml_meta.cli import class_split, plots
from rml_meta.cli.data import make_environments
from rml_meta.cli.options import InspectConfig
from rml_meta.evaluation import EnvironmentReport, inspect_environments

IMAGES = 5  # of each class and environment for the probe, and as many to test it, where there are so many


def inspect(config: InspectConfig) -> None:
    """Print the table of exchanged probes and what it means, and draw it."""
    report = report_of(config)
    names = [f"environment {number + 1}" for number in range(len(report.table))]
    lines = [
        f"accuracy of the label from {report.cue.lower()}, %",
        f"{'probe of':<16}" + "".join(f"{n:>16}" for n in names),
    ]
    lines += [
        f"{name:<16}" + "".join(f"{100 * value:>16.1f}" for value in row)
        for name, row in zip(names, report.table.tolist(), strict=True)
    ]
    sys.stdout.write("\n".join([*lines, str(report)]) + "\n")
    if config.out:
        plots.exchange(report.table.tolist(), config.out, chance=report.chance, cue=report.cue)


def report_of(config: InspectConfig) -> EnvironmentReport:
    """The report on tasks of the base classes.

    Raises:
        UserError: There is one environment, or too few images.
    """
    made = make_environments(config.environments, config.correlations, config.ways)
    if made is None or len(made) < 2:
        raise UserError(f"environments {config.environments!r} are one: there is nothing to compare; give two or more")
    with Runtime.session(config.device, "fp32", config.seed) as runtime:
        base = class_split.load_classes(config.data, config.image_size, config.data_root, config.download)[0]
        base = class_split.with_channels(base, 3 if config.environments.startswith("colour") else base.shape[0])
        counts = base.class_counts()
        each = min(int(counts[counts > 0].min()) // (2 * len(made)), IMAGES)
        sampler = EpisodeSampler(
            base,
            config.ways,
            max(each, 1),
            max(each, 1),
            config.episodes,
            batch_size=min(8, config.episodes),
            seed=config.seed,
            environments=made,
            mean=0.0,
            std=1.0,
            device=runtime.device,
        )
        return inspect_environments(sampler.epoch(0))
