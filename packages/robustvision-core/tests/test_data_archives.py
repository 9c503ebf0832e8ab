from __future__ import annotations

import io
import os
import pathlib
import tarfile
import zipfile

import pytest
from robustvision_core.data.archives import read_members, safe_extract
from robustvision_core.errors import DataError

FILES = {"top.txt": b"1", "deep/er/file.bin": bytes(5000), "deep/other": b""}


def make_zip(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def make_tar(path: pathlib.Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> pathlib.Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tar_of(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    return make_tar(path, [(entry(name), content) for name, content in files.items()])


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_extracts_and_reads_what_is_there(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / f"archive.{kind}"
    make_zip(path, FILES) if kind == "zip" else tar_of(path, FILES)
    folder = safe_extract(path, tmp_path / "new" / "out")
    found = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert found == FILES
    assert [f.name for f in folder.parent.iterdir()] == ["out"]
    assert read_members(path, lambda name: name.startswith("deep")) == {k: v for k, v in FILES.items() if "deep" in k}


def test_links_that_stay_inside_are_kept(tmp_path: pathlib.Path) -> None:
    members = [
        (entry("a/file"), b"hello"),
        (entry("b/soft", tarfile.SYMTYPE, "../a/file"), b""),
        (entry("b/hard", tarfile.LNKTYPE, "a/file"), b""),
    ]
    folder = safe_extract(make_tar(tmp_path / "links.tar", members), tmp_path / "out")
    assert (folder / "b" / "soft").is_symlink()
    assert (folder / "b" / "soft").read_bytes() == (folder / "b" / "hard").read_bytes() == b"hello"


OUTSIDE = ["../evil", "a/../../evil", "/evil", "a/../b", "..\\evil", "\\evil", "C:\\evil", "c:/evil"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_members_outside_are_refused_before_anything_is_written(tmp_path: pathlib.Path, kind: str, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    files = {"good": b"1", name: b"2"}
    path = make_zip(tmp_path / "x.zip", files) if kind == "zip" else tar_of(tmp_path / "x.tar", files)
    before = sorted(tmp_path.rglob("*"))
    for act in (lambda: safe_extract(path, home / "out"), lambda: read_members(path, lambda _: True)):
        with pytest.raises(DataError, match="would land outside the folder") as caught:
            act()
        assert repr(name) in str(caught.value)
        assert str(path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert not pathlib.Path("/evil").exists()


LINKS = {
    "soft link out": ([("out", tarfile.SYMTYPE, "../..")], "'out' points outside"),
    "soft link to the parent": ([("out", tarfile.SYMTYPE, "..")], "'out' points outside"),
    "absolute soft link": ([("out", tarfile.SYMTYPE, "/etc")], "'out' points outside"),
    "deep soft link": ([("a/b", tarfile.SYMTYPE, "../../x")], "'a/b' points outside"),
    "hard link out": ([("out", tarfile.LNKTYPE, "../secret")], "'out' points outside"),
    "absolute hard link": ([("out", tarfile.LNKTYPE, "/etc/passwd")], "'out' points outside"),
    "through a link": ([("d", tarfile.SYMTYPE, "."), ("d/e", tarfile.REGTYPE, "")], "'d/e' leads through a link"),
    "link through a link": ([("d", tarfile.SYMTYPE, "e"), ("f", tarfile.SYMTYPE, "d/../..")], "'f' points outside"),
    "climbing by links": ([("d", tarfile.SYMTYPE, "e/f"), ("g", tarfile.SYMTYPE, "d/x")], "'g' leads through a link"),
    "up from a link": ([("d", tarfile.SYMTYPE, "."), ("f", tarfile.SYMTYPE, "d/../x")], "'f' leads through a link"),
    "the folder itself": ([(".", tarfile.SYMTYPE, "x"), ("y", tarfile.REGTYPE, "")], "leads through a link"),
    "device": ([("dev", tarfile.CHRTYPE, "")], "'dev' is a device or pipe"),
    "pipe": ([("pipe", tarfile.FIFOTYPE, "")], "'pipe' is a device or pipe"),
}


@pytest.mark.parametrize("case", LINKS)
def test_dangerous_links_and_devices_are_refused(tmp_path: pathlib.Path, case: str) -> None:
    members, message = LINKS[case]
    path = make_tar(tmp_path / "x.tar", [(entry("good"), b"1"), *((entry(*m), b"") for m in members)])
    with pytest.raises(DataError, match=message):
        safe_extract(path, tmp_path / "out")
    assert [f.name for f in tmp_path.iterdir()] == ["x.tar"]


def test_a_zipped_link_becomes_a_plain_file(tmp_path: pathlib.Path) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    folder = safe_extract(tmp_path / "x.zip", tmp_path / "out")
    assert not (folder / "link").is_symlink()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_broken_archives_are_named_and_leave_nothing(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / f"archive.{kind}"
    files = {"a": os.urandom(40000), "b": os.urandom(40000)}
    make_zip(path, files) if kind == "zip" else tar_of(path, files)
    path.write_bytes(path.read_bytes()[:50000])
    with pytest.raises(DataError, match=r"is truncated or no archive") as caught:
        safe_extract(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == [path.name]


def test_damaged_contents_are_named(tmp_path: pathlib.Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a": os.urandom(1000)})
    raw = bytearray(path.read_bytes())
    raw[200] ^= 255
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.zip is truncated or no archive"):
        read_members(path, lambda _: True)


def test_missing_archive_and_full_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="there is no archive"):
        safe_extract(tmp_path / "none.zip", tmp_path / "out")
    path = make_zip(tmp_path / "x.zip", FILES)
    (tmp_path / "out").mkdir()
    safe_extract(path, tmp_path / "out")
    with pytest.raises(DataError, match="it exists already"):
        safe_extract(path, tmp_path / "out")
