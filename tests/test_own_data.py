"""The page on one's own data is true: its commands train on images in the layouts that it describes."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import pathlib
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robustvision_core.predict import load_run

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guides" / "own-data.md"
CLASSES = [f"class{number:02d}" for number in range(24)]
EACH = {"train": 18, "test": 4}
SMOKE = {
    "fdiv_noisy": ["--epochs", "1", "--loss", "ce"],
    "flowaug": ["--train-size", "96"],
    "pseudolabel_da": ["--pretrain", "1", "--epochs", "1", "--image-size", "16"],
    "rml_meta": ["--image-size", "12"],
}


def commands() -> list[str]:
    blocks = re.findall(r"^```shell\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line]


def samples() -> Iterator[tuple[str, str, bytes]]:
    """Split, class and file of flat images, a shade a class."""
    for part, each in EACH.items():
        for number, name in enumerate(CLASSES):
            for seed in range(each):
                noise = np.random.default_rng(100 * number + seed).integers(0, 10, (16, 16, 3))
                out = io.BytesIO()
                Image.fromarray((noise + 10 * number).astype(np.uint8)).save(out, "png")
                yield part, name, out.getvalue()


def write_files(top: pathlib.Path, held: list[tuple[str, str, bytes]]) -> None:
    rows = []
    for number, (part, name, image) in enumerate(held):
        for place in (top / "photos" / part, top / "domains" / ("webcam" if number % 2 else "phone")):
            (place / name).mkdir(parents=True, exist_ok=True)
            (place / name / f"{number}.png").write_bytes(image)
        rows.append((f"photos/{part}/{name}/{number}.png", name, part))
    for table, of in (("photos", rows), ("webcam", rows[::2]), ("phone", rows[1::2])):
        with open(top / f"{table}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("file", "label", "split"), *of])


def write_shards(top: pathlib.Path, held: list[tuple[str, str, bytes]]) -> None:
    (top / "shards").mkdir()
    for part in ("train", "val", "test"):
        with tarfile.open(top / "shards" / f"{part}-000.tar", "w") as tar:
            for number, (own, name, image) in enumerate(held):
                for kind, content in (("png", image), ("cls", name.encode())) if own in (part, "test") else ():
                    member = tarfile.TarInfo(f"{number:05d}.{kind}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def write_tables(top: pathlib.Path, held: list[tuple[str, str, bytes]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (top / "photos-parquet").mkdir()
    (top / "photos-hf").mkdir()
    (top / "photos-hf" / "dataset_dict.json").write_text(json.dumps({"splits": list(EACH)}))
    for part in EACH:
        images = pa.array([{"bytes": image, "path": None} for own, _, image in held if own == part])
        table = pa.table({"image": images, "label": [name for own, name, _ in held if own == part]})
        pq.write_table(table, top / "photos-parquet" / f"{part}.parquet", row_group_size=100)
        folder = top / "photos-hf" / part
        folder.mkdir()
        with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))


def write_arrays(top: pathlib.Path, held: list[tuple[str, str, bytes]]) -> None:
    arrays: dict[str, Any] = {}
    for part in EACH:
        own = [(name, image) for split, name, image in held if split == part]
        arrays[f"x_{part}"] = np.stack([np.asarray(Image.open(io.BytesIO(image))) for _, image in own])
        arrays[f"y_{part}"] = np.array([CLASSES.index(name) for name, _ in own])
    np.savez(top / "photos.npz", **arrays)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    top = tmp_path_factory.mktemp("own")
    held = list(samples())
    for write in (write_files, write_shards, write_tables, write_arrays):
        write(top, held)
    return top


@pytest.mark.parametrize("command", commands())
def test_command_trains(
    command: str, place: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ("parquet:" in command or "hf:" in command) and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("needs the extra datasets of the core")
    monkeypatch.chdir(place)
    program, *words = shlex.split(command)
    package = program.replace("-", "_")
    more = ["--preset", "smoke", *SMOKE[package], "--device", "cpu", "--no-progress", "--out", str(tmp_path / "run")]
    more += ["--train-size", "0"] if "--stream" in words else []
    assert importlib.import_module(f"{package}.cli").main([*words, *more]) == 0
    assert (tmp_path / "run" / "summary.json").is_file()
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "copy")  # as to another machine
    shutil.rmtree(tmp_path / "run")
    monkeypatch.chdir(tmp_path)  # from here the training data cannot be found
    predictor: Any = load_run(tmp_path / "elsewhere" / "copy", device="cpu")
    new = [Image.new("RGB", (31, 20), (shade,) * 3) for shade in (10, 200)]
    if package == "rml_meta":
        predictor = predictor.learn({"class00": new[:1], "class20": new[1:]})
    assert set(predictor.predict(new).names) <= set(CLASSES if "npz" not in command else map(str, range(24)))
