"""The command line; needs `pip install "pseudolabel-da[train]"` for all but its help."""

from __future__ import annotations

import sys

COMMANDS = {
    "demo": (
        "adapt a digit classifier to coloured backgrounds",
        ".demo:demo",
        ".options:DemoConfig",
    ),
    "train": (
        "train a classifier and adapt it to another domain",
        ".train:train",
        ".recipes:TrainConfig",
    ),
    "evaluate": (
        "test a trained classifier on both domains",
        ".evaluate:evaluate",
        ".options:EvaluateConfig",
    ),
    "predict": (
        "label new images with a trained run",
        "robustvision_core.predict.verbs:predict",
        "robustvision_core.predict.options:PredictOptions",
    ),
    "export": (
        "write the network of a run for other programs",
        "robustvision_core.predict.verbs:export",
        "robustvision_core.predict.options:ExportOptions",
    ),
    "diagnose": (
        "say how a run's pseudo-labels fared, and what to do",
        ".diagnose:diagnose_run",
        ".options:DiagnoseConfig",
    ),
    "table": (
        "the eight rows of the paper's table 2 for your domains",
        ".table:table",
        ".options:TableConfig",
    ),
    "prepare-mnistm": (
        "write MNIST-M from MNIST and photos",
        ".prepare:prepare_mnistm",
        ".options:PrepareConfig",
    ),
    "compare": (
        "put finished runs side by side",
        "robustvision_core.run.comparing:compare",
        "robustvision_core.run.comparison:CompareOptions",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run `pseudolabel-da` and return its exit status."""
    try:
        from robustvision_core.cli import dispatch
    except ModuleNotFoundError:
        return _without_extra(sys.argv[1:] if argv is None else argv)
    return dispatch("pseudolabel_da", COMMANDS, argv)


def _without_extra(argv: list[str]) -> int:
    install = 'pip install "pseudolabel-da[train]"'
    if argv and argv[0] not in ("-h", "--help"):
        sys.stderr.write(f"pseudolabel-da: error: the command line needs an extra: {install}\n")
        return 2
    verbs = "".join(f"  {verb:<15} {text}\n" for verb, (text, *_) in COMMANDS.items())
    sys.stdout.write(f"usage: pseudolabel-da VERB [options]\n\n{verbs}\nThe verbs need an extra: {install}\n")
    return 0 if argv else 2
