"""The command line; needs `pip install "flowaug[train]"` for all but its help."""

from __future__ import annotations

import sys

COMMANDS = {
    "demo": (
        "learn how far sprites may be rotated, with and without augmentation",
        ".demo:demo",
        ".options:DemoConfig",
    ),
    "train": (
        "train a classifier with the augmentations of every image",
        ".train:train",
        ".recipes:TrainConfig",
    ),
    "evaluate": (
        "test a trained model, under rotation too",
        ".evaluate:evaluate",
        ".options:EvaluateConfig",
    ),
    "align": ("bring images, yours or test images, into a common pose", ".align:align", ".options:AlignConfig"),
    "sample": ("write augmented views of your images", ".sample:sample", ".options:SampleConfig"),
    "predict": (
        "label new images with a trained run",
        "robustvision_core.predict.verbs:predict",
        "robustvision_core.predict.options:PredictOptions",
    ),
    "export": (
        "write a trained run's classifier for other programs",
        "robustvision_core.predict.verbs:export",
        "robustvision_core.predict.options:ExportOptions",
    ),
    "compare": (
        "put finished runs side by side",
        "robustvision_core.run.comparing:compare",
        "robustvision_core.run.comparison:CompareOptions",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run `flowaug` and return its exit status."""
    try:
        from robustvision_core.cli import dispatch
    except ModuleNotFoundError:
        return _without_extra(sys.argv[1:] if argv is None else argv)
    return dispatch("flowaug", COMMANDS, argv)


def _without_extra(argv: list[str]) -> int:
    install = 'pip install "flowaug[train]"'
    if argv and argv[0] not in ("-h", "--help"):
        sys.stderr.write(f"flowaug: error: the command line needs an extra: {install}\n")
        return 2
    verbs = "".join(f"  {verb:<14} {text}\n" for verb, (text, *_) in COMMANDS.items())
    sys.stdout.write(f"usage: flowaug VERB [options]\n\n{verbs}\nThe verbs need an extra: {install}\n")
    return 0 if argv else 2
