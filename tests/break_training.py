"""Break the training of every package: kill it, take its disk away, damage its checkpoint. Nothing complete is lost.

    python tests/break_training.py [PACKAGE ...] [--kills 10] [--seed 0]

For each package: training is killed at random moments and resumed until it ends, and gives the weights of a run that
was left alone, bit for bit; files that may no longer grow in the middle of a run end it with one line and leave the
last checkpoint whole; a damaged checkpoint is refused in one line by `train --resume` and by `evaluate`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from robustvision_core.run import load_checkpoint

PACKAGES = ["fdiv-noisy", "rml-meta", "pseudolabel-da", "flowaug", "diffpnp-pose"]
TRAIN = ["train", "--preset", "smoke", "--no-progress", "--device", "cpu"]


def start(package: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """The command, running."""
    command = [sys.executable, "-m", package.replace("-", "_"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what it said on the error stream."""
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


def must(holds: bool, what: str) -> None:
    """Stop where something does not hold."""
    if not holds:
        raise SystemExit(f"BROKEN: {what}")


def epochs_kept(folder: pathlib.Path) -> tuple[int, int]:
    """(epochs, batches) in the checkpoint; all that is there must be whole."""
    for name in ("config.json", "summary.json"):
        if (folder / name).exists():
            json.loads((folder / name).read_text())
    if (folder / "best.pt").exists():
        load_checkpoint(folder / "best.pt")
    if not (folder / "checkpoint.pt").exists():
        return 0, 0
    progress = load_checkpoint(folder / "checkpoint.pt")["progress"]
    return progress["epoch"], progress["batch"]


def one_line(package: str, status: int, errors: str, name: str) -> None:
    """The refusal must be one line that names the file, with exit status 2."""
    lines = errors.strip().splitlines()
    good = status == 2 and len(lines) == 1 and lines[0].startswith(f"{package}: error: ") and name in lines[0]
    must(good, f"{package}: exit {status}, said: {errors[-2000:]}")
    sys.stdout.write(f"  {lines[0]}\n")


def same(left: Any, right: Any) -> bool:
    """Whether two states, of tensors and plain values, are the same bit for bit."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def kill_and_resume(package: str, top: pathlib.Path, kills: int, draw: random.Random) -> None:
    """Kill at random moments; the end must be that of the run that was left alone."""
    whole, cut = top / "whole", top / "cut"
    began = time.monotonic()
    status, errors = finish(start(package, [*TRAIN, "--out", str(whole)]))
    took = time.monotonic() - began
    must(status == 0, f"{package}: training ended with {status}: {errors[-2000:]}")
    kept, moments = (0, 0), []
    for _ in range(kills):
        resume = ["--resume"] if (cut / "config.json").exists() else []
        process = start(package, [*TRAIN, "--out", str(cut), *resume])
        moment = draw.uniform(0.2, 1) * took
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        now = epochs_kept(cut)
        must(now >= kept, f"{package}: had {kept} epochs and batches, after the kill {now}")
        kept = now
        moments.append(f"{moment:.1f} s: {kept[0]}")
    status, errors = finish(start(package, [*TRAIN, "--out", str(cut), "--resume"]))
    must(status == 0, f"{package}: resuming ended with {status}: {errors[-2000:]}")
    left, right = (load_checkpoint(folder / "checkpoint.pt")["step"] for folder in (whole, cut))
    must(left.keys() == right.keys(), f"{package}: another state")
    must(same(left, right), f"{package}: other weights after {kills} kills")
    sys.stdout.write(f"  {kills} kills (moment: epochs kept: {', '.join(moments)}), then the same weights\n")


def no_more_space(package: str, top: pathlib.Path) -> None:
    """Once there is a checkpoint, files may no longer grow."""
    folder = top / "full"
    process = start(package, [*TRAIN, "--epochs", "400", "--out", str(folder)])
    while not (folder / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.02)
    must(process.poll() is None, f"{package}: ended before its first checkpoint")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2000, 2000))
    status, errors = finish(process)
    one_line(package, status, errors, str(folder))
    must(epochs_kept(folder)[0] >= 1, f"{package}: the checkpoint is lost")


def damage(package: str, top: pathlib.Path) -> None:
    """Flip bits all over the checkpoint."""
    path = top / "whole" / "checkpoint.pt"
    raw = bytearray(path.read_bytes())
    for place in range(len(raw) // 4, 3 * len(raw) // 4, 499):
        raw[place] ^= 0x10
    path.write_bytes(raw)
    for arguments in (
        [*TRAIN, "--resume", "--out", str(top / "whole")],
        ["evaluate", "--run", str(top / "whole"), "--which", "checkpoint", "--device", "cpu"],
    ):
        one_line(package, *finish(start(package, arguments)), str(path))


def main() -> None:
    """Break what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for package in options.packages:
        sys.stdout.write(f"{package}\n")
        with tempfile.TemporaryDirectory() as folder:
            top = pathlib.Path(folder)
            kill_and_resume(package, top, options.kills, random.Random(options.seed))
            no_more_space(package, top)
            damage(package, top)


if __name__ == "__main__":
    main()
