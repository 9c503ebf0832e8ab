"""Memory that a set takes in training, its pixels in memory or in a mapped file, each in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.common import save

QUESTION = "How much memory does a set take in loading and in an epoch, in memory and in a mapped file?"
FILES, ROWS, SIDE = 100, 20_000, 128
WAYS = {"in memory": "64", "in a file": "0"}  # limits in GiB
KINDS = {"private": "RssAnon", "of files": "RssFile"}


def main() -> None:
    """Measure each way and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        table = pictures(pathlib.Path(folder))
        rows = [{"pixels": name} | measured(table, limit) for name, limit in WAYS.items()]
    gib = ROWS * 3 * SIDE**2 / 2**30
    note = (
        f"{ROWS:,} images of {SIDE}x{SIDE}, {gib:.2f} GiB of pixels: decoded, a fifth cut off for the test, one "
        "shuffled epoch of batches of 64. Private memory is what only more memory or swap can hold; pages of files "
        "the system drops where it needs the room. Peaks in MiB above the process before; seconds of processor"
    )
    save(__file__, QUESTION, rows, note=note)


def pictures(folder: pathlib.Path) -> pathlib.Path:
    """A CSV that lists some photos many times."""
    import torch
    from PIL import Image

    for number in range(FILES):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(folder / f"{number}.jpg")
    lines = ["file,label", *(f"{row % FILES}.jpg,{row % 2}" for row in range(ROWS))]
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "table.csv"


def measured(table: pathlib.Path, limit: str) -> dict[str, Any]:
    """What a process with a limit says."""
    command = [sys.executable, "-m", "benchmarks.robustvision_core.mapped_memory", str(table)]
    environment = {**os.environ, "ROBUSTVISION_MAX_GIB": limit}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def one_process(table: str) -> dict[str, float]:
    """Load, cut and read a set once; peaks above the start and seconds."""
    import torch
    from robustvision_core.data import DeviceBatches, load, train_and_test

    torch.set_num_threads(1)
    DeviceBatches(load("digits"), 64)  # what is imported late
    with peaks() as loading:
        train, _ = train_and_test(functools.partial(load, f"csv:{table}", image_size=SIDE))
    with peaks(loading) as epoch:
        for _ in DeviceBatches(train, 64, shuffle=True).epoch(0):
            pass
    return {
        f"{what}, {name}": part[name]
        for what, part in (("loading", loading), ("epoch", epoch))
        for name in (*KINDS, "s")
    }


def held() -> dict[str, float]:
    """MiB of each kind now."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {name: int(values[field].split()[0]) / 1024 for name, field in KINDS.items()}


@contextlib.contextmanager
def peaks(before: dict[str, float] | None = None) -> Iterator[dict[str, float]]:
    """The most of each kind above the start, that of `before` if it is given, and seconds of processor."""
    start = {name: before[f"start {name}"] for name in KINDS} if before else held()
    most, ended, began = dict.fromkeys(KINDS, 0.0), threading.Event(), time.process_time()

    def watch() -> None:
        while not ended.wait(0.01):
            most.update({name: max(most[name], value - start[name]) for name, value in held().items()})

    thread, found = threading.Thread(target=watch), {}
    thread.start()
    yield found
    ended.set()
    thread.join()
    found |= {f"start {name}": value for name, value in start.items()} | most | {"s": time.process_time() - began}


if __name__ == "__main__":
    print(json.dumps(one_process(sys.argv[1])))
