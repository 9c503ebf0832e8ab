"""`--check two`: a second network adapted from another seed, whose answers say most of wrong labels."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Callable

from robustvision_core.run.folder import Run
from robustvision_core.run.runtime import Runtime

from pseudolabel_da.cli.data import AdaptationData
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.step import Step
from pseudolabel_da.diagnosis.error import Opinion
from pseudolabel_da.seeds import derive_seed

NAME = "second"
"""Its folder in that of the run."""

Fit = Callable[[TrainConfig, AdaptationData, Runtime, Run], Step]


def second_opinion(config: TrainConfig, data: AdaptationData, runtime: Runtime, run: Run, fit: Fit) -> Opinion | None:
    """What a second network says, trained by `fit` in a folder of its own and resumed there; None if none is asked for.

    It sees the same samples as the first, in another order and from other weights (the same ones where the first
    starts from a file).
    """
    if config.selection.check != "two" or config.method not in ("pseudo", "ican") or not config.adaptation:
        return None
    if runtime.is_main:
        sys.stderr.write("pseudolabel-da: a second network first, for --check two\n")
    folder = pathlib.Path(run.folder) / NAME
    resume = (folder / "checkpoint.pt").exists()
    own = config.changed(seed=derive_seed(config.seed, NAME), check="means", out=str(folder), resume=resume)
    with contextlib.closing(Run(folder, own, resume=resume, writes=runtime.is_main)) as theirs:
        return fit(own, data, runtime, theirs).state.opinion
