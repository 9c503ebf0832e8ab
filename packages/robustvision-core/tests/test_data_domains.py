from __future__ import annotations

import pathlib
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import (
    DomainPair,
    ImageSet,
    align_classes,
    blend,
    domain_names,
    draw_backgrounds,
    load,
    load_domains,
    resize,
    to_rgb,
)
from robustvision_core.errors import DataError, UserError
from scipy import io

PARTS = ("train", "val", "test")


def write_idx(path: pathlib.Path, array: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
    path.write_bytes(head + array.numpy().tobytes())


def write_grey(root: pathlib.Path, name: str = "mnist", counts: tuple[int, int] = (200, 60)) -> None:
    generator = torch.Generator().manual_seed(3)
    for prefix, count in zip(("train", "t10k"), counts, strict=True):
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        images[torch.rand(images.shape, generator=generator) < 0.6] = 0
        write_idx(root / name / f"{prefix}-images-idx3-ubyte", images)
        write_idx(root / name / f"{prefix}-labels-idx1-ubyte", (torch.arange(count) % 10).byte())


def write_domain(folder: pathlib.Path, classes: tuple[str, ...], count: int = 20, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = generator.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k:02d}.png")


def numbers(pair: DomainPair, *parts: str) -> set[int]:
    return {number for part in parts for number in pair.parts()[part].ids.tolist()}


def make(classes: tuple[str, ...], side: int = 4) -> ImageSet:
    count = 2 * len(classes)
    return ImageSet(torch.zeros(count, 3, side, side, dtype=torch.uint8), torch.arange(count) % len(classes), classes)


def test_classes_are_matched_by_name() -> None:
    ours, theirs = make(("ant", "bee", "cat")), make(("cat", "ant", "bee"))
    aligned = align_classes(theirs, ours.classes, "pair")
    assert aligned.classes == ours.classes
    assert [aligned.classes[k] for k in aligned.labels] == [theirs.classes[k] for k in theirs.labels]
    pair = DomainPair(ours, ours, ours, theirs, theirs, theirs, name="zoo")
    assert pair.target_train.labels.tolist() == aligned.labels.tolist()
    assert pair.target_test.name == "zoo/target_test"
    assert pair.to("cpu").parts().keys() == pair.parts().keys()


def test_differing_classes_and_shapes_are_named() -> None:
    ours = make(("ant", "bee", "cat"))
    for theirs, only in (
        (make(("ant", "cow", "bee")), "only in the source cat, only in the target cow"),
        (make(("ant", "bee")), "only in the source cat, only in the target none"),
        (make(("ant", "bee", "bee")), "only in the source cat, only in the target none"),
    ):
        with pytest.raises(DataError, match=f"zoo: the classes of source and target differ: {only}"):
            DomainPair(ours, ours, ours, theirs, theirs, theirs, name="zoo")
    many = make(tuple(f"c{k:02d}" for k in range(15)))
    with pytest.raises(DataError, match=r"only in the target c00, .*c09 and 5 more"):
        DomainPair(ours, ours, ours, many, many, many)
    wide = make(ours.classes, 5)
    with pytest.raises(DataError, match=r"target_val has images of \(3, 5, 5\), source_train of \(3, 4, 4\)"):
        DomainPair(ours, ours, ours, ours, wide, ours)


def test_digits_shift_is_offline_disjoint_and_what_it_says(tmp_path: pathlib.Path) -> None:
    pair = load_domains("digits-shift", root=tmp_path / "none", seed=4, strength=0.7)
    domains = [[pair.parts()[f"{domain}_{part}"] for part in PARTS] for domain in ("source", "target")]
    ids = torch.cat([part.ids for domain in domains for part in domain])
    assert len(ids.unique()) == len(ids) == 1797
    digits = {split: load("digits", split, size=28) for split in ("train", "test")}
    known = {number: image for d in digits.values() for number, image in zip(d.ids.tolist(), d.images, strict=True)}
    for part in domains[0]:
        assert torch.equal(part.images, torch.stack([known[i] for i in part.ids.tolist()]).repeat(1, 3, 1, 1))
    for part in domains[1]:
        solid = torch.stack([known[i] for i in part.ids.tolist()]) > 127
        backgrounds = (draw_backgrounds(part.ids, 28, 4) * 0.7).round().byte()
        assert torch.equal(part.images, blend(solid.byte(), backgrounds))
    for part in pair.parts().values():
        assert part.shape == (3, 28, 28)
        share = part.class_counts() / len(part)
        assert (share - 0.1).abs().max() < 0.03


def test_pairs_are_fixed_by_the_seed() -> None:
    first, again, other = (load_domains("digits-shift", seed=seed, size=8) for seed in (1, 1, 2))
    for key, part in first.parts().items():
        assert torch.equal(part.ids, again.parts()[key].ids)
        assert torch.equal(part.images, again.parts()[key].images)
    assert first.source_train.ids.tolist() != other.source_train.ids.tolist()


@pytest.mark.parametrize(("name", "base"), [("mnist-mnistm", "mnist"), ("fashion-fashionm", "fashion-mnist")])
def test_disjoint_protocol_shares_no_image(tmp_path: pathlib.Path, name: str, base: str) -> None:
    write_grey(tmp_path, base)
    pair = load_domains(name, tmp_path, backgrounds="procedural", val=0.2)
    source, target = (numbers(pair, f"{domain}_train", f"{domain}_val") for domain in ("source", "target"))
    assert not source & target
    assert len(source) == len(target) == 100
    assert source | target == set(range(200))
    assert [len(part) for part in pair.parts().values()] == [80, 20, 60, 80, 20, 60]
    assert pair.source_train.class_counts().tolist() == pair.target_train.class_counts().tolist() == [8] * 10
    made = load(f"{base}-m-procedural", "train", tmp_path)
    assert torch.equal(pair.target_train.images, made.images[pair.target_train.ids])
    assert torch.equal(pair.target_train.labels, made.labels[pair.target_train.ids])
    grey = load(base, "train", tmp_path)
    assert torch.equal(pair.source_train.images, grey.images[pair.source_train.ids].expand(-1, 3, -1, -1))


def test_canonical_and_pooled_protocols(tmp_path: pathlib.Path) -> None:
    write_grey(tmp_path)
    options = {"backgrounds": "procedural", "size": 32}
    canonical = load_domains("mnist-mnistm", tmp_path, protocol="canonical", **options)
    for domain in ("source", "target"):
        assert numbers(canonical, f"{domain}_train", f"{domain}_val") == set(range(200))
        assert len(canonical.parts()[f"{domain}_test"]) == 60
    assert canonical.source_train.shape == (3, 32, 32)
    pooled = load_domains("mnist-mnistm", tmp_path, protocol="pooled", **options)
    assert [len(part) for part in pooled.parts().values()] == [182, 39, 39] * 2
    for domain in ("source", "target"):
        assert numbers(pooled, *(f"{domain}_{part}" for part in PARTS)) == set(range(260))
    assert numbers(pooled, "source_train") & numbers(pooled, "target_test")  # the leak that it is there to show
    test = load("mnist-m-procedural", "test", tmp_path, size=32)
    held = pooled.target_train.ids >= 200
    assert torch.equal(pooled.target_train.images[held], test.images[pooled.target_train.ids[held] - 200])


def test_usps_and_svhn_are_brought_to_one_shape(tmp_path: pathlib.Path) -> None:
    import bz2

    write_grey(tmp_path)
    for file in ("usps.bz2", "usps.t.bz2"):
        values = np.random.default_rng(len(file)).uniform(-1, 1, (40, 256)).round(4)
        lines = [
            f"{k % 10 + 1} " + " ".join(f"{i}:{v:g}" for i, v in enumerate(row, 1)) for k, row in enumerate(values)
        ]
        (tmp_path / file).write_bytes(bz2.compress("\n".join(lines).encode()))
    for split in ("train", "test"):
        x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 30), dtype=np.uint8)
        io.savemat(tmp_path / f"{split}_32x32.mat", {"X": x, "y": np.arange(30)[:, None] % 10 + 1})
    usps, mnist, svhn = (load(name, "test", tmp_path) for name in ("usps", "mnist", "svhn"))
    there, back = load_domains("mnist-usps", tmp_path), load_domains("usps-mnist", tmp_path)
    assert torch.equal(there.source_test.images, mnist.images)
    assert torch.equal(there.target_test.images, resize(usps, 28).images)
    assert torch.equal(back.source_test.images, there.target_test.images)
    assert len(there.target_train) + len(there.target_val) == 40
    houses = load_domains("svhn-mnist", tmp_path)
    assert torch.equal(houses.source_test.images, svhn.images)
    assert torch.equal(houses.target_test.images, to_rgb(resize(mnist, 32)).images)


@pytest.mark.parametrize("inner", ["", "images"])
def test_folder_domains(tmp_path: pathlib.Path, inner: str) -> None:
    classes = ("bike", "mug", "train")  # a class of VisDA is called as a split is
    write_domain(tmp_path / "train" / inner, classes)
    write_domain(tmp_path / "Real World" / inner, classes, seed=1)
    pair = load_domains(f"folder:{tmp_path}:train:Real World", image_size=6)
    assert pair.name == "train-Real World"
    assert pair.source_train.classes == classes
    for domain in ("source", "target"):
        parts = [pair.parts()[f"{domain}_{part}"] for part in PARTS]
        assert [part.class_counts().tolist() for part in parts] == [[14] * 3, [3] * 3, [3] * 3]
        assert sorted(torch.cat([part.ids for part in parts]).tolist()) == list(range(60))
    place = int(pair.target_test.ids[0])
    file = tmp_path / "Real World" / inner / classes[place // 20] / f"{place % 20:02d}.png"
    expected = np.asarray(Image.open(file))[:, 0:6].transpose(2, 0, 1)  # the middle of 7 columns, rounded to even
    np.testing.assert_array_equal(pair.target_test.images[0].numpy(), expected)
    other = load_domains(f"folder:{tmp_path}:Real World:train", image_size=6)
    assert torch.equal(other.source_test.ids, pair.target_test.ids)
    counts = load_domains(f"folder:{tmp_path}:train:Real World", image_size=6, sizes=(30, 15, 15))
    assert [len(part) for part in counts.parts().values()] == [30, 15, 15] * 2


@pytest.mark.parametrize("inner", ["", "images"])
def test_a_flat_target_folder_has_images_and_no_labels(tmp_path: pathlib.Path, inner: str) -> None:
    write_domain(tmp_path / "photo", ("bike", "mug"), 8)
    flat = tmp_path / "elsewhere" / "mine" / inner
    flat.mkdir(parents=True)
    for number in (2, 0, 1):
        pixels = np.full((6, 6, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(flat / f"{number}.png")
    (flat / "notes.txt").write_text("no image")
    (flat / "._0.png").write_bytes(b"of a file manager")
    for name in (f"{tmp_path / 'photo'}:{tmp_path / 'elsewhere' / 'mine'}", f"{tmp_path}:photo:elsewhere/mine"):
        pair = load_domains(f"folder:{name}", image_size=6)
        assert not pair.target_labelled
        assert [path.name for path in pair.target_files] == ["0.png", "1.png", "2.png"]
        assert pair.target_train.ids.tolist() == [0, 1, 2]
        assert pair.target_train.images[:, 0, 0, 0].tolist() == [0, 40, 80]
        assert [len(pair.target_val), len(pair.target_test), len(pair.source_train)] == [0, 0, 11]
        assert pair.target_train.classes == ("bike", "mug")
        assert pair.name == "photo-mine"


def test_a_target_may_lack_classes_and_its_ids_name_files(tmp_path: pathlib.Path) -> None:
    write_domain(tmp_path / "all", ("bike", "mug", "pen"), 10)
    write_domain(tmp_path / "few", ("pen", "bike"), 10, seed=1)
    pair = load_domains(f"folder:{tmp_path}:all:few", image_size=6)
    assert pair.target_labelled
    assert pair.target_train.classes == ("bike", "mug", "pen")
    assert pair.target_train.class_counts().tolist() == [7, 0, 7]
    for label, place in zip(pair.target_test.labels.tolist(), pair.target_test.ids.tolist(), strict=True):
        assert pair.target_files[place].parent.name == pair.target_test.classes[label]


def test_folder_errors(tmp_path: pathlib.Path) -> None:
    write_domain(tmp_path / "a", ("mug", "pen"), 5)
    write_domain(tmp_path / "b", ("mug", "pencil"), 5)
    (tmp_path / "empty").mkdir()
    for name in ("folder:here", "folder::a", f"folder:{tmp_path}:a:"):
        with pytest.raises(UserError, match=r"is written folder:PATH:SOURCE:TARGET"):
            load_domains(name)
    with pytest.raises(DataError, match=r"a-b: the classes .* only in the source pen, only in the target pencil"):
        load_domains(f"folder:{tmp_path}:a:b")
    with pytest.raises(DataError, match=r"there is no domain folder .*c: expected .*c/<class>/<image>"):
        load_domains(f"folder:{tmp_path}:a:c")
    with pytest.raises(DataError, match="empty holds no images"):
        load_domains(f"folder:{tmp_path}:a:empty")
    for part in ("train", "test"):
        write_domain(tmp_path / "cut" / part, ("mug", "pen"), 5)
    with pytest.raises(DataError, match=r"cut has folders test, train of classes.* as .*cut/train$"):
        load_domains(f"folder:{tmp_path}:cut:a")
    with pytest.raises(UserError, match=r"sizes are .*, expected three"):
        load_domains(f"folder:{tmp_path}:a:a", sizes=(0.5, 0.5))
    (tmp_path / "b" / "mug" / "00.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"00.png is truncated or no image"):
        load_domains(f"folder:{tmp_path}:b:a")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist-mnist", {}, "unknown domain pair 'mnist-mnist': did you mean 'mnist-mnistm'"),
        ("digits-shift", {"sise": 3}, "unknown option of digits-shift 'sise': did you mean 'size'"),
        ("digits-shift", {"size": 3}, "digits-shift: size is 3"),
        ("digits-shift", {"strength": 0}, "digits-shift: strength is 0"),
        ("digits-shift", {"val": 1.0}, "val is 1.0, expected a share between 0 and 1"),
        ("mnist-mnistm", {"protocol": "fair"}, "unknown protocol of mnist-mnistm 'fair'.*canonical, disjoint, pooled"),
        ("mnist-mnistm", {"backgrounds": "none"}, "unknown backgrounds of mnist-mnistm 'none'"),
        ("mnist-mnistm", {"backgrounds": "procedural", "photos": "x"}, "mnist-mnistm: photos are given, but"),
        ("mnist-mnistm", {"size": 40}, "size is 40, expected 28 or 32"),
    ],
)
def test_unknown_things_are_named(tmp_path: pathlib.Path, name: str, options: dict[str, object], message: str) -> None:
    write_grey(tmp_path)
    with pytest.raises(UserError, match=message):
        load_domains(name, tmp_path, **options)


def test_missing_files_are_named(tmp_path: pathlib.Path) -> None:
    for name in ("mnist-mnistm", "fashion-fashionm", "mnist-usps", "usps-mnist", "svhn-mnist"):
        with pytest.raises(DataError, match=r"found no .* under"):
            load_domains(name, tmp_path)
    assert {"digits-shift", "folder:PATH", "mnist-mnistm"} <= domain_names().keys()


@pytest.mark.realdata
def test_real_mnist_to_mnistm(real_data: pathlib.Path) -> None:
    pair = load_domains("mnist-mnistm", real_data)
    assert [len(part) for part in pair.parts().values()] == [27000, 3000, 10000] * 2
    assert not numbers(pair, "source_train", "source_val") & numbers(pair, "target_train", "target_val")
    twin = load("mnist", root=real_data)
    assert torch.equal(pair.target_train.labels, twin.labels[pair.target_train.ids])
    dark = (twin.images[pair.target_train.ids] == 0).float()
    share = (pair.target_train.images.float() * dark).sum() / dark.sum() / 3
    assert 60 < share < 180  # photos shine through where the digit is not
    assert replace(pair).source_train.images.float().mean() < 60
