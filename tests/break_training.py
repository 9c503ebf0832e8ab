"""Break the training of every package: kill it, take its disk away, damage its checkpoint. Nothing complete is lost.

    python tests/break_training.py [PACKAGE ...] [--kills 10] [--seed 0]

For each package: training is killed at random moments and resumed until it ends, and gives the weights of a run that
was left alone, bit for bit; a disk that fills up in the middle of an epoch ends it with one line and leaves the last
checkpoint whole (where no disk can be mounted, a limit on the size of files takes its place); a damaged checkpoint is
refused in one line by `train --resume` and by `evaluate`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from robustvision_core.run import load_checkpoint

PACKAGES = ["fdiv-noisy", "rml-meta", "pseudolabel-da", "flowaug", "diffpnp-pose"]
EPOCHS = {"fdiv-noisy": 30, "rml-meta": 14, "pseudolabel-da": 14, "flowaug": 20, "diffpnp-pose": 16}
"""So many that ten kills fall in different ones."""


def train(package: str, epochs: int = 0) -> list[str]:
    """Arguments of a training that is over in some ten seconds, or of a longer one."""
    return [
        "train",
        "--preset",
        "smoke",
        "--no-progress",
        "--device",
        "cpu",
        "--epochs",
        f"{epochs or EPOCHS[package]}",
    ]


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
    """The refusal must be one line that names the file, with exit status 2; warnings of the training may precede it."""
    lines = [line for line in errors.strip().splitlines() if not line.startswith(f"{package}: warning: ")]
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


def wait_for(path: pathlib.Path, process: subprocess.Popen[str]) -> None:
    """Until the file is there or the process has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


def train_whole(package: str, folder: pathlib.Path) -> float:
    """A run that is left alone; the seconds of an epoch."""
    process = start(package, [*train(package), "--out", str(folder)])
    wait_for(folder / "metrics.jsonl", process)
    began = time.monotonic()
    status, errors = finish(process)
    must(status == 0, f"{package}: training ended with {status}: {errors[-2000:]}")
    return (time.monotonic() - began) / EPOCHS[package]


def kill_at(process: subprocess.Popen[str], metrics: pathlib.Path, epoch: int, seconds: float) -> None:
    """Let the run log so many epochs and go on for some seconds, then kill it."""
    while process.poll() is None and epochs_logged(metrics) < epoch:
        time.sleep(0.005)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)
    process.kill()
    process.communicate()


def epochs_logged(metrics: pathlib.Path) -> int:
    """Lines of `metrics.jsonl`."""
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def kill_and_resume(package: str, top: pathlib.Path, kills: int, draw: random.Random) -> None:
    """Kill at random moments of training; the end must be that of the run that was left alone."""
    whole, cut = top / "whole", top / "cut"
    took, kept, moments = train_whole(package, whole), (0, 0), []
    for epoch in sorted(draw.sample(range(EPOCHS[package] - 1), kills)):
        resume = ["--resume"] if (cut / "config.json").exists() else []
        process = start(package, [*train(package), "--out", str(cut), *resume])
        kill_at(process, cut / "metrics.jsonl", epoch, draw.uniform(0, 1) * took)
        now = epochs_kept(cut)
        must(now >= kept, f"{package}: had {kept} epochs and batches, after the kill {now}")
        kept = now
        moments.append(str(kept[0]))
    status, errors = finish(start(package, [*train(package), "--out", str(cut), "--resume"]))
    must(status == 0, f"{package}: resuming ended with {status}: {errors[-2000:]}")
    left, right = (load_checkpoint(folder / "checkpoint.pt")["step"] for folder in (whole, cut))
    must(left.keys() == right.keys(), f"{package}: another state")
    must(same(left, right), f"{package}: other weights after {kills} kills")
    sys.stdout.write(
        f"  {kills} kills in {EPOCHS[package]} epochs, kept then: {', '.join(moments)}; the same weights\n"
    )


def no_more_space(package: str, top: pathlib.Path) -> None:
    """Once there is a checkpoint, the disk fills up in the middle of an epoch."""
    with small_disk(top) as disk:
        folder = disk / "full"
        process = start(package, [*train(package, 4000), "--out", str(folder)])
        wait_for(folder / "checkpoint.pt", process)
        must(process.poll() is None, f"{package}: ended before its first checkpoint")
        fill(disk, process)
        status, errors = finish(process)
        one_line(package, status, errors, str(folder))
        must(epochs_kept(folder)[0] >= 1, f"{package}: the checkpoint is lost")


@contextlib.contextmanager
def small_disk(top: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 64 MiB in memory where the system lets us mount one, else a folder."""
    disk = top / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield disk
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def fill(disk: pathlib.Path, process: subprocess.Popen[str]) -> None:
    """Take what is left of the disk, and what the process frees of it; a folder gets a limit on its files instead."""
    if not disk.is_mount():
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2000, 2000))
        return
    with (disk / "ballast").open("wb", buffering=0) as file:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                while file.write(b"0" * 4096) == 4096:
                    pass
            time.sleep(0.01)


def damage(package: str, top: pathlib.Path) -> None:
    """Flip bits all over the checkpoint."""
    path = top / "whole" / "checkpoint.pt"
    raw = bytearray(path.read_bytes())
    for place in range(len(raw) // 4, 3 * len(raw) // 4, 499):
        raw[place] ^= 0x10
    path.write_bytes(raw)
    for arguments in (
        [*train(package), "--resume", "--out", str(top / "whole")],
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
