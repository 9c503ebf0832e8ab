"""Images of one's own, in every layout that is read: they give what the folder gives, and faults are named."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import (
    FileBatches,
    ImageSet,
    channel_stats,
    in_files,
    list_files,
    load,
    load_domains,
    split,
    storage,
)
from robustvision_core.data.batches.device import DeviceBatches
from robustvision_core.data.sampling.splits import train_and_test
from robustvision_core.errors import DataError, MissingSplitError, UserError

pa = pytest.importorskip("pyarrow")

PARTS = {"train": 4, "test": 2}
Sample = tuple[bytes, str]


def png(seed: int, shape: Sequence[int] = (11, 13)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


SAMPLES = {
    part: [(png(100 * (part == "test") + 10 * k + i), name) for k, name in enumerate(("ant", "bee")) for i in range(n)]
    for part, n in PARTS.items()
}


def write_folder(top: pathlib.Path, samples: dict[str, list[Sample]] = SAMPLES) -> str:
    for part, held in samples.items():
        for number, (image, label) in enumerate(held):
            (top / part / label).mkdir(parents=True, exist_ok=True)
            (top / part / label / f"{number}.png").write_bytes(image)
    return f"folder:{top}"


def write_csv(top: pathlib.Path) -> str:
    write_folder(top)
    files = [(f.relative_to(top), f.parent.name, f.parent.parent.name) for f in sorted(top.rglob("*.png"))]
    with open(top / "photos.csv", "w", newline="") as table:
        csv.writer(table).writerows([("file", "label", "split"), *files])
    return f"csv:{top / 'photos.csv'}"


def write_webdataset(top: pathlib.Path, samples: dict[str, list[Sample]] = SAMPLES) -> str:
    for part, held in samples.items():
        for shard in range(2):
            with tarfile.open(top / f"{part}-{shard}.tar", "w") as tar:
                for number, (image, label) in list(enumerate(held))[shard * 3 : 3 if shard == 0 else None]:
                    kinds = {"png": image}
                    kinds |= {"cls": label.encode()} if shard else {"json": json.dumps({"label": label}).encode()}
                    for kind, content in kinds.items():
                        member = tarfile.TarInfo(f"set/{number:04d}.{kind}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return f"webdataset:{top}"


def table_of(held: list[Sample], names: Sequence[str] | None = None) -> Any:
    """A table as `datasets` writes it: structs of bytes and path, and with `names` numbers for labels."""
    image = pa.array([{"bytes": content, "path": None} for content, _ in held])
    labels = [names.index(label) if names else label for _, label in held]
    table = pa.table({"image": image, "label": labels})
    if names is None:
        return table
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(top: pathlib.Path, samples: dict[str, list[Sample]] = SAMPLES) -> str:
    import pyarrow.parquet

    for part, held in samples.items():
        pyarrow.parquet.write_table(table_of(held), top / f"{part}-00000-of-00001.parquet", row_group_size=3)
    return f"parquet:{top}"


def write_hf(top: pathlib.Path) -> str:
    (top / "dataset_dict.json").write_text(json.dumps({"splits": list(SAMPLES)}))
    for part, held in SAMPLES.items():
        (top / part).mkdir()
        table = table_of(held, ("ant", "bee"))
        path = str(top / part / "data-00000-of-00001.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": part}
        (top / part / "state.json").write_text(json.dumps(state))
    return f"hf:{top}"


WRITERS: dict[str, Callable[[pathlib.Path], str]] = {
    "csv": write_csv,
    "webdataset": write_webdataset,
    "parquet": write_parquet,
    "hf": write_hf,
}


def same(one: ImageSet, two: ImageSet) -> bool:
    equal = torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)
    return equal and one.classes == two.classes


@pytest.mark.parametrize("kind", WRITERS)
def test_every_layout_gives_what_the_folder_gives(tmp_path: pathlib.Path, kind: str) -> None:
    for name in ("folder", "own"):
        (tmp_path / name).mkdir()
    folder, own = write_folder(tmp_path / "folder"), WRITERS[kind](tmp_path / "own")
    for part in PARTS:
        assert same(load(folder, part, image_size=8), load(own, part, image_size=8))
        files = list_files(own, part)
        batches = FileBatches(files, 3, image_size=8, workers=0, mean=0, std=1 / 255)
        seen = torch.cat([batch.images for batch in batches.epoch(0)])
        assert torch.equal(seen.round().byte(), load(folder, part, image_size=8).images)
    with pytest.raises(MissingSplitError, match="has no val images, but test, train"):
        load(own, "val")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_path_may_be_one_of_the_data_root(tmp_path: pathlib.Path, kind: str) -> None:
    (tmp_path / "set").mkdir()
    name, _, path = WRITERS[kind](tmp_path / "set").partition(":")
    relative = pathlib.Path(path).relative_to(tmp_path)
    assert len(load(f"{name}:{relative}", root=tmp_path, image_size=8)) == 8


def test_columns_may_be_named_and_ordered_otherwise(tmp_path: pathlib.Path) -> None:
    write_folder(tmp_path)
    lines = ["Class;when;image_path", "10;today;train/ant/0.png", "9;;train/bee/4.png", "", "10;x;train/ant/1.png"]
    (tmp_path / "a.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    data = load(f"csv:{tmp_path / 'a.csv'}", image_size=8)
    assert data.classes == ("9", "10")
    assert data.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,kind\na.png,cat", r"a\.csv has the columns name, kind, and no file: expected a first line 'file,label'"),
        ("file,kind\na.png,cat", r"and no label"),
        ("", r"has the columns none"),
        ("file,label\nno.png,cat", r"a\.csv, line 2: there is no file .*no\.png; paths are relative to the CSV"),
        ("file,label\nok.png,cat\nok.png,", r"a\.csv, line 3 has no label: 'ok.png, '"),
        ("file,label\n\nok.png", r"a\.csv, line 3 has no label"),
        ("file,label\nok.png,cat\nbroken.png,cat", r"a\.csv, line 3: .*broken\.png is truncated or no image"),
        ("file,label,split\nok.png,cat,train\nok.png,dog,test", r"line 3 has the label 'dog', which no training image"),
    ],
)
def test_faults_of_a_csv_are_named(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "ok.png").write_bytes(png(0))
    (tmp_path / "broken.png").write_bytes(png(0)[:60])
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(f"csv:{tmp_path / 'a.csv'}", "test" if "split" in text else "train", image_size=8)
    assert "\n" not in str(caught.value)


def test_csv_of_another_encoding_or_missing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_bytes("file,label\nä.png,cat".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.csv is no CSV in UTF-8"):
        load(f"csv:{tmp_path / 'a.csv'}")
    with pytest.raises(DataError, match=r"none\.csv: expected a file or pattern of files there"):
        load(f"csv:{tmp_path / 'none.csv'}")


def test_faults_of_tables_are_named(tmp_path: pathlib.Path) -> None:
    import pyarrow.parquet as pq

    def refused(table: Any, message: str) -> None:
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(DataError, match=message) as caught:
            load(f"parquet:{tmp_path / 'a.parquet'}", image_size=8)
        assert "\n" not in str(caught.value)

    image = pa.array([png(0), png(1)])
    refused(pa.table({"image": image, "text": ["a", "b"]}), r"has the columns image, text, and no label")
    refused(pa.table({"image": image, "label": ["a", None]}), r"a\.parquet, row 1 has no label, but None")
    refused(pa.table({"image": pa.array([png(0), b"no"]), "label": [0, 1]}), r"a\.parquet, row 1 is truncated or no")
    refused(pa.table({"image": pa.array([png(0), None]), "label": [0, 1]}), r"a\.parquet, row 1 has no image")
    refused(pa.table({"image": ["none.png"], "label": [0]}), r"a\.parquet, row 0 is truncated or no image.*none\.png")
    refused(pa.table({"image": [1.5], "label": [0]}), r"column image holds double: expected files' bytes")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"b\.parquet cannot be read as a table"):
        load(f"parquet:{tmp_path / 'b.parquet'}")
    with pytest.raises(DataError, match=r"holds no set that datasets saved: expected state\.json"):
        load(f"hf:{tmp_path}")


def test_tables_may_name_files_and_splits(tmp_path: pathlib.Path) -> None:
    import pyarrow.parquet as pq

    folder = write_folder(tmp_path)
    files = sorted(tmp_path.rglob("*.png"))
    columns = {
        "path": [str(file.relative_to(tmp_path)) for file in files],
        "class": [file.parent.name for file in files],
        "split": [file.parent.parent.name for file in files],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for part in PARTS:
        assert same(load(folder, part, image_size=8), load(f"parquet:{tmp_path / 'a.parquet'}", part, image_size=8))


def test_faults_of_shards_are_named(tmp_path: pathlib.Path) -> None:
    def refused(members: dict[str, bytes], message: str) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        with pytest.raises(DataError, match=message) as caught:
            load(f"webdataset:{tmp_path / 'a.tar'}", image_size=8)
        assert "\n" not in str(caught.value)

    refused({"0.png": png(0)}, r"a\.tar: sample 0 has no label \(\.cls, .*\), but \.png")
    refused({"0.cls": b"cat"}, r"a\.tar: sample 0 has no image, but \.cls")
    refused({"0.png": png(0), "0.json": b"{"}, r"a\.tar: 0\.json is no JSON")
    refused({"0.png": b"no", "0.cls": b"cat"}, r"a\.tar: 0\.png is truncated or no image")
    refused({}, r"a\.tar holds no samples")
    (tmp_path / "b.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"b\.tar cannot be read as an uncompressed tar file"):
        load(f"webdataset:{tmp_path / 'b.tar'}")


def test_patterns_of_shards(tmp_path: pathlib.Path) -> None:
    write_webdataset(tmp_path)
    pattern = f"webdataset:{tmp_path}/train-{{0..1}}.tar"
    assert len(load(pattern, image_size=8)) == 8
    assert len(load(pattern, "test", image_size=8)) == 4
    assert len(load(f"webdataset:{tmp_path}/train-1.tar", image_size=8)) == 5
    assert len(load(f"webdataset:{tmp_path}/t*-0.tar", image_size=8)) == 6


def test_few_shot_splits_have_classes_of_their_own(tmp_path: pathlib.Path) -> None:
    write_parquet(tmp_path, {"train": SAMPLES["train"], "test": [(png(1), "cow"), (png(2), "ant")]})
    with pytest.raises(DataError, match=r"row 0 has the label 'cow', which no training image has"):
        load(f"parquet:{tmp_path}", "test")
    novel = load(f"parquet:{tmp_path}", "test", own_classes=True)
    assert novel.classes == ("ant", "cow")
    assert novel.labels.tolist() == [1, 0]


def test_two_sets_make_a_domain_pair(tmp_path: pathlib.Path) -> None:
    samples = {"train": SAMPLES["train"] * 3}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    folder, shards = write_folder(tmp_path / "a", samples), write_webdataset(tmp_path / "b", SAMPLES)
    pair = load_domains(f"{folder},{shards}", image_size=8)
    assert len(pair.source_train) + len(pair.source_val) + len(pair.source_test) == 24
    assert same(pair.target_test, load(shards, "test", image_size=8))  # its own split is kept
    assert len(pair.target_train) + len(pair.target_val) == 8
    both = load_domains(f"folder:{tmp_path / 'a'},{tmp_path / 'a'}", image_size=8)
    assert same(both.source_train, both.target_train)
    with pytest.raises(UserError, match="is written SOURCE,TARGET"):
        load_domains(f"{folder},{shards},{shards}")
    (tmp_path / "c.csv").write_text(f"file,label\n{next(tmp_path.rglob('*.png'))},cat")
    with pytest.raises(DataError, match="the classes of source and target differ: only in the source ant, bee"):
        load_domains(f"{folder},csv:{tmp_path / 'c.csv'}", image_size=8)


def test_without_a_test_split_a_part_is_drawn(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write_folder(tmp_path, {"train": SAMPLES["train"] * 5})
    train, test = train_and_test(lambda part: load(name, part, image_size=8))
    assert (len(train), len(test)) == (32, 8)
    assert test.class_counts().tolist() == [4, 4]
    assert "8 of the 40 are drawn for the test" in capsys.readouterr().err


def test_only_files_are_read_one_by_one(tmp_path: pathlib.Path) -> None:
    assert in_files("folder:x")
    assert not in_files("digits")
    with pytest.raises(UserError, match=r"digits is not read image by image: only csv:PATH, folder:PATH"):
        list_files("digits")


@pytest.fixture
def mapped(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv(storage.SCRATCH_VARIABLE, str(tmp_path / "scratch"))
    monkeypatch.setenv(storage.LIMIT_VARIABLE, "0.0000001")
    monkeypatch.setattr(storage, "SMALL", 0)
    return tmp_path


def test_more_than_memory_goes_into_a_file(mapped: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write_folder(mapped / "data")
    data, memory = load(name, image_size=8), load(name, image_size=8, max_gib=1)
    assert data.is_mapped
    assert not memory.is_mapped
    assert f"are decoded into a file in {mapped / 'scratch'}" in capsys.readouterr().err
    assert same(data, memory)
    parts = zip(split(data, [0.5, 0.5], seed=0), split(memory, [0.5, 0.5], seed=0), strict=True)
    for one, two in parts:
        assert one.is_mapped
        assert same(one, two)
    for one, two in zip(channel_stats(data), channel_stats(memory), strict=True):
        assert torch.equal(one, two)
    ways = ([*DeviceBatches(held, 3, shuffle=True).epoch(0)] for held in (data, memory))
    assert all(torch.equal(one.images, two.images) for one, two in zip(*ways, strict=True))
    assert not list((mapped / "scratch").iterdir())  # nothing is left behind, even by a killed process


def test_no_room_for_the_file_is_said(mapped: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DataError, match=r"scratch has no room for .* GiB of pixels: set ROBUSTVISION_SCRATCH"):
        load(write_folder(mapped / "data"), image_size=8)
    monkeypatch.setenv(storage.SCRATCH_VARIABLE, str(mapped / "none"))
    with pytest.raises(DataError, match=r"cannot write to .*none"):
        load(f"folder:{mapped / 'data'}", image_size=8)
    monkeypatch.setenv(storage.LIMIT_VARIABLE, "much")
    with pytest.raises(UserError, match="ROBUSTVISION_MAX_GIB is 'much': expected a number of GiB"):
        load(f"folder:{mapped / 'data'}", image_size=8)
