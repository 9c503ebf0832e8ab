"""The command line; needs `pip install "diffpnp-pose[train]"` for all but its help."""

from __future__ import annotations

import sys

COMMANDS = {
    "demo": (
        "train a pose network with and without the PnP loss",
        ".demo:demo",
        ".options:DemoConfig",
    ),
    "train": (
        "train a keypoint network for poses",
        ".train:train",
        ".recipes:TrainConfig",
    ),
    "evaluate": (
        "test a trained network and draw its poses",
        ".evaluate:evaluate",
        ".options:EvaluateConfig",
    ),
    "predict": (
        "find poses in new images or a video",
        ".prediction.verbs:predict",
        ".options:PredictConfig",
    ),
    "export": (
        "write the keypoint network for use elsewhere",
        ".prediction.verbs:export",
        "robustvision_core.predict.options:ExportOptions",
    ),
    "solve": (
        "find poses from a file of correspondences",
        ".solve:solve",
        ".options:SolveConfig",
    ),
    "calibrate": (
        "find a camera in photos of a chessboard",
        ".calibrate:calibrate",
        ".options:CalibrateConfig",
    ),
    "render": ("draw a drone at a pose", ".render:render", ".options:RenderConfig"),
    "compare": (
        "put finished runs side by side",
        "robustvision_core.run.comparing:compare",
        "robustvision_core.run.comparison:CompareOptions",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run `diffpnp-pose` and return its exit status."""
    try:
        from robustvision_core.cli import dispatch
    except ModuleNotFoundError:
        return _without_extra(sys.argv[1:] if argv is None else argv)
    return dispatch("diffpnp_pose", COMMANDS, argv)


def _without_extra(argv: list[str]) -> int:
    install = 'pip install "diffpnp-pose[train]"'
    if argv and argv[0] not in ("-h", "--help"):
        sys.stderr.write(f"diffpnp-pose: error: the command line needs an extra: {install}\n")
        return 2
    verbs = "".join(f"  {verb:<9} {text}\n" for verb, (text, *_) in COMMANDS.items())
    sys.stdout.write(f"usage: diffpnp-pose VERB [options]\n\n{verbs}\nThe verbs need an extra: {install}\n")
    return 0 if argv else 2
