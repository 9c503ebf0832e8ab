"""Folders as they are unpacked, and evaluation on classes of one's own."""

from __future__ import annotations

import pathlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from rml_meta.cli import main
from rml_meta.cli.class_split import load_all, load_classes
from rml_meta.cli.layouts import class_folders, csv_files, read_cache, read_part
from robustvision_core.errors import DataError, UserError


def image(path: pathlib.Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path)


def sun(top: pathlib.Path) -> None:
    for letter in "abc":
        for scene in ("hall", "hotel/indoor", "hotel/outdoor"):
            for i in range(2):
                image(top / letter / f"{letter}_{scene}" / f"{i}.png", ord(letter))
    image(top / "outliers" / "x" / "0.png")
    image(top / "misc" / "0.png" / "0.png")


def test_letters_of_sun_are_no_classes(tmp_path: pathlib.Path) -> None:
    sun(tmp_path)
    files = class_folders(tmp_path)
    assert files.classes[:3] == ("a_hall", "a_hotel/indoor", "a_hotel/outdoor")
    assert torch.bincount(files.labels).tolist() == [2] * 9
    base, val, novel = load_classes(f"folder:{tmp_path}", 8)
    assert [part.num_classes for part in (base, val, novel)] == [5, 2, 2]


def test_classes_at_other_depths(tmp_path: pathlib.Path) -> None:
    for name in ("bird/crow", "bird/jay", "fish/cod"):
        image(tmp_path / "deep" / "families" / name / "0.png")
    assert class_folders(tmp_path / "deep").classes == ("families/bird/crow", "families/bird/jay", "families/fish/cod")
    for name in ("crow/0.png", "crow/young/1.png", "jay/0.png"):
        image(tmp_path / "plain" / name)
    assert class_folders(tmp_path / "plain").classes == ("crow", "jay")  # images of a class may lie deeper
    for part, letter in (("train", "a"), ("val", "b"), ("test", "c")):
        image(tmp_path / "split" / part / letter / f"{letter}_hall" / "0.png")
    assert [part.classes for part in load_classes(f"folder:{tmp_path / 'split'}", 8)] == [
        ("a_hall",),
        ("b_hall",),
        ("c_hall",),
    ]


@pytest.mark.parametrize("header", ["filename,label", "class_name,image_name"])
@pytest.mark.parametrize("place", ["images", "images/by class", "."])
def test_csv_splits(tmp_path: pathlib.Path, header: str, place: str) -> None:
    for part, classes in (("train", "ab"), ("val", "c"), ("test", "de")):
        rows = []
        for label in classes:
            for i in range(2):
                file = f"{label}{i}.png"
                folder = tmp_path / "images" / label if place.endswith("class") else tmp_path / place
                image(folder / file, 10 * i)
                rows.append(f"{file},{label}" if header.startswith("filename") else f"{label},{file}")
        (tmp_path / f"{part}.csv").write_text("\ufeff" + "\n".join([header, *rows, ""]), encoding="utf-8")
    base, val, novel = load_classes(f"folder:{tmp_path}", 6)
    assert (base.classes, val.classes, novel.classes) == (("a", "b"), ("c",), ("d", "e"))
    assert base.labels.tolist() == [0, 0, 1, 1]
    assert base.images[:, 0, 0, 0].tolist() == [0, 10, 0, 10]
    assert load_all(f"folder:{tmp_path}", 6).classes == ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,kind\na.png,b\n", "begins with 'name,kind': expected columns filename,label or"),
        ("filename,label\n", "lists no images"),
        ("filename,label\na.png\n", "a row without a file or class"),
        ("filename,label\nno.png,b\n", "names no.png, which is in none of"),
        ("", "begins with ''"),
    ],
)
def test_damaged_csv(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        csv_files(tmp_path / "train.csv")


def cache(path: pathlib.Path, classes: dict, count: int, protocol: int = 2) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 255, (count, 9, 9, 3), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"image_data": images, "class_dict": classes}, protocol))
    return images


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_caches(tmp_path: pathlib.Path, protocol: int) -> None:
    images = cache(tmp_path / "mini-imagenet-cache-train.pkl", {"n2": [0, 3], "n1": [1, 2]}, 5, protocol)
    cache(tmp_path / "mini-imagenet-cache-validation.pkl", {"n3": [0]}, 1)
    cache(tmp_path / "mini-imagenet-cache-test.pkl", {"n4": [0], "n5": [1]}, 2)
    base, val, novel = load_classes(f"folder:{tmp_path}", 9)
    assert (base.classes, val.classes, novel.classes) == (("n1", "n2"), ("n3",), ("n4", "n5"))
    assert base.labels.tolist() == [1, 0, 0, 1]
    assert np.array_equal(base.images.numpy(), images[[0, 1, 2, 3]].transpose(0, 3, 1, 2))


class Evil:
    def __reduce__(self) -> tuple:
        return (pathlib.Path.touch, (pathlib.Path("touched-by-a-pickle"),))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (Evil(), "which plain data does not need"),
        ({"image_data": [1], "class_dict": {}}, "expected image_data"),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {}}, "expected class_dict"),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [2]}}, "not numbers from 0 to 1"),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [-1]}}, "not numbers from 0 to 1"),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": "01"}}, "not numbers from 0 to 1"),
        ([1, 2], "expected image_data"),
    ],
)
def test_pickles_that_are_no_caches(tmp_path: pathlib.Path, held: object, message: str) -> None:
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps(held))
    with pytest.raises(DataError, match=message):
        read_cache(path)
    assert not pathlib.Path("touched-by-a-pickle").exists()


def test_missing_and_empty_folders(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read_part(tmp_path / "no", "train", 8)
    with pytest.raises(DataError, match="holds no images"):
        read_part(tmp_path, "train", 8)
    assert read_part(tmp_path, "test", 8) is None
    with pytest.raises(UserError, match="is written folder:PATH"):
        load_classes("folder:", 8)


SHORT = ["--preset", "smoke", "--epochs", "1", "--steps", "1", "--image-size", "12", "--device", "cpu", "--no-progress"]


def test_evaluation_on_a_folder_of_ones_own(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for c in range(8):
        for i in range(17):
            image(tmp_path / "mine" / f"class{c}" / f"{i}.png", 30 * c + i)
    runs = {method: str(tmp_path / method) for method in ("protonet", "maml")}
    for method, out in runs.items():
        assert main(["train", "--method", method, *SHORT, "--out", out]) == 0
    capsys.readouterr()
    own = ["--data", f"folder:{tmp_path / 'mine'}", "--episodes", "3", "--device", "cpu"]
    assert main(["evaluate", "--run", runs["protonet"], *own]) == 0
    assert capsys.readouterr().out.startswith("all 8 classes of folder:")
    assert main(["evaluate", "--run", runs["protonet"], *own, "--ways", "7"]) == 0
    assert main(["evaluate", "--run", runs["protonet"], *own, "--ways", "9"]) == 2
    assert "episodes of 9 ways need at least 9" in capsys.readouterr().err
    assert main(["evaluate", "--run", runs["protonet"], *own, "--part", "novel"]) == 2  # every fourth of eight
    assert main(["evaluate", "--run", runs["maml"], *own]) == 0
    assert main(["evaluate", "--run", runs["maml"], *own, "--ways", "7"]) == 2
    assert "maml was trained for 5 classes a task and cannot change" in capsys.readouterr().err
    assert main(["evaluate", "--run", runs["maml"], "--part", "all"]) == 2
    assert "--part all is for another set" in capsys.readouterr().err
