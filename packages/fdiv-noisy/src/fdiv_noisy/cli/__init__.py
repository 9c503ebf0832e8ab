"""The command line; needs `pip install "fdiv-noisy[train]"` for all but its help."""

from __future__ import annotations

import sys

COMMANDS = {
    "demo": (
        "train on noisy digits with and without our losses",
        ".demo:demo",
        ".options:DemoConfig",
    ),
    "train": ("train a classifier on noisy labels", ".train:train", ".recipes:TrainConfig"),
    "evaluate": (
        "test a trained classifier",
        ".evaluate:evaluate",
        ".options:EvaluateConfig",
    ),
    "predict": (
        "label new images with a trained run",
        "robustvision_core.predict.verbs:predict",
        "robustvision_core.predict.options:PredictOptions",
    ),
    "export": (
        "write a trained network as torch.export or ONNX",
        "robustvision_core.predict.verbs:export",
        "robustvision_core.predict.options:ExportOptions",
    ),
    "noise make": (
        "write a file of noisy labels",
        ".noise:make_noise",
        ".options:MakeConfig",
    ),
    "noise inspect": (
        "describe a file of noisy labels",
        ".noise:inspect_noise",
        ".options:InspectConfig",
    ),
    "issues": (
        "find the labels that are wrong",
        ".issues:find_issues",
        ".options:IssuesConfig",
    ),
    "estimate": (
        "find the noise in noisy labels alone",
        ".noise:estimate_noise",
        ".options:EstimateConfig",
    ),
    "compare": (
        "put finished runs side by side",
        "robustvision_core.run.comparing:compare",
        "robustvision_core.run.comparison:CompareOptions",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run `fdiv-noisy` and return its exit status."""
    try:
        from robustvision_core.cli import dispatch
    except ModuleNotFoundError:
        return _without_extra(sys.argv[1:] if argv is None else argv)
    return dispatch("fdiv_noisy", COMMANDS, argv)


def _without_extra(argv: list[str]) -> int:
    install = 'pip install "fdiv-noisy[train]"'
    if argv and argv[0] not in ("-h", "--help"):
        sys.stderr.write(f"fdiv-noisy: error: the command line needs an extra: {install}\n")
        return 2
    verbs = "".join(f"  {verb:<14} {text}\n" for verb, (text, *_) in COMMANDS.items())
    sys.stdout.write(f"usage: fdiv-noisy VERB [options]\n\n{verbs}\nThe verbs need an extra: {install}\n")
    return 0 if argv else 2
