from __future__ import annotations

import io
import os
import pathlib
import tarfile
import zipfile

import pytest
from robustvision_core.data.reading.archives import read_members
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
def test_reads_what_is_there(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / f"archive.{kind}"
    make_zip(path, FILES) if kind == "zip" else tar_of(path, FILES)
    assert read_members(path, lambda _: True) == FILES
    assert read_members(path, lambda name: name.startswith("deep")) == {k: v for k, v in FILES.items() if "deep" in k}


def test_links_and_devices_are_left_out(tmp_path: pathlib.Path) -> None:
    members = [
        (entry("a/file"), b"hello"),
        (entry("soft", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (entry("hard", tarfile.LNKTYPE, "a/file"), b""),
        (entry("device", tarfile.CHRTYPE), b""),
    ]
    assert read_members(make_tar(tmp_path / "x.tar", members), lambda _: True) == {"a/file": b"hello"}


OUTSIDE = ["../evil", "a/../../evil", "/evil", "a/../b", "..\\evil", "\\evil", "C:\\evil", "c:/evil"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_members_outside_are_refused(tmp_path: pathlib.Path, kind: str, name: str) -> None:
    files = {"good": b"1", name: b"2"}
    path = make_zip(tmp_path / "x.zip", files) if kind == "zip" else tar_of(tmp_path / "x.tar", files)
    with pytest.raises(DataError, match="would land outside the folder") as caught:
        read_members(path, lambda _: True)
    assert repr(name) in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_broken_archives_are_named(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / f"archive.{kind}"
    files = {"a": os.urandom(40000), "b": os.urandom(40000)}
    make_zip(path, files) if kind == "zip" else tar_of(path, files)
    path.write_bytes(path.read_bytes()[:50000])
    with pytest.raises(DataError, match=r"is truncated or no archive") as caught:
        read_members(path, lambda _: True)
    assert str(path) in str(caught.value)


def test_damaged_contents_are_named(tmp_path: pathlib.Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a": os.urandom(1000)})
    raw = bytearray(path.read_bytes())
    raw[200] ^= 255
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.zip is truncated or no archive"):
        read_members(path, lambda _: True)


def test_missing_archive(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="there is no archive"):
        read_members(tmp_path / "none.zip", lambda _: True)
