"""The command line; needs `pip install "rml-meta[train]"` for all but its help."""

from __future__ import annotations

import sys

COMMANDS = {
    "demo": ("MAML against RML where colours mislead", ".demo:demo", ".options:DemoConfig"),
    "train": (
        "train a few-shot method on base classes",
        ".train:train",
        ".recipes:TrainConfig",
    ),
    "evaluate": (
        "test a trained method on novel classes",
        ".evaluate:evaluate",
        ".options:EvaluateConfig",
    ),
    "predict": ("label new images by a folder of examples", ".predict:predict", ".options:PredictConfig"),
    "export": (
        "a classifier of new classes, or the features, as torch.export or ONNX",
        ".predict:export",
        ".options:ExportConfig",
    ),
    "inspect": ("whether the environments are such as rml helps with", ".inspection:inspect", ".options:InspectConfig"),
    "grid": ("every method on every protocol of the paper", ".grid:grid", ".options:GridConfig"),
    "compare": (
        "put finished runs side by side",
        "robustvision_core.run.comparing:compare",
        "robustvision_core.run.comparison:CompareOptions",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run `rml-meta` and return its exit status."""
    try:
        from robustvision_core.cli import dispatch
    except ModuleNotFoundError:
        return _without_extra(sys.argv[1:] if argv is None else argv)
    return dispatch("rml_meta", COMMANDS, argv)


def _without_extra(argv: list[str]) -> int:
    install = 'pip install "rml-meta[train]"'
    if argv and argv[0] not in ("-h", "--help"):
        sys.stderr.write(f"rml-meta: error: the command line needs an extra: {install}\n")
        return 2
    verbs = "".join(f"  {verb:<10} {text}\n" for verb, (text, *_) in COMMANDS.items())
    sys.stdout.write(f"usage: rml-meta VERB [options]\n\n{verbs}\nThe verbs need an extra: {install}\n")
    return 0 if argv else 2
