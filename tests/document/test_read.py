"""Reading files: what is missing, unreadable, no file, too large or no text; and overlays beside the lab."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from labctl.diagnostics import Diagnostic
from labctl.document.read import decode, read_document


def only(path: Path, *overlays: str) -> Diagnostic:
    result = read_document(path, overlays)
    assert result.value is None
    (diagnostic,) = result.diagnostics
    return diagnostic


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "lab.yaml").write_text("lab: x\nhosts: {ash: {address: a}}\n")
    return tmp_path


def test_a_file_and_its_folder_are_the_same_lab(lab: Path) -> None:
    by_folder, by_file = read_document(lab).value, read_document(lab / "lab.yaml").value
    assert by_folder is not None
    assert by_file is not None
    assert by_folder.data == by_file.data == {"lab": "x", "hosts": {"ash": {"address": "a"}}}
    assert by_folder.file == str(lab / "lab.yaml")


def test_the_working_directory_reads_as_a_bare_name(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab)
    document = read_document(Path()).value
    assert document is not None
    assert document.file == "lab.yaml"


def test_overlays_are_laid_in_order(lab: Path) -> None:
    (lab / "lab.one.yaml").write_text("hosts: {ash: {address: b, user: u}}\n")
    (lab / "lab.two.yaml").write_text("hosts: {ash: {address: c}}\n")
    document = read_document(lab, ["one", "two"]).value
    assert document is not None
    assert document.data["hosts"] == {"ash": {"address": "c", "user": "u"}}
    span = document.span(("hosts", "ash", "user"))
    assert span is not None
    assert span.file == str(lab / "lab.one.yaml")


def test_problems_of_all_files_are_reported(lab: Path) -> None:
    (lab / "lab.yaml").write_text("lab: [\n")
    (lab / "lab.one.yaml").write_text("")
    result = read_document(lab, ["one", "two"])
    assert result.value is None
    assert [d.code for d in result.diagnostics] == ["LAB004", "LAB010", "LAB001"]


def test_a_missing_file_names_what_is_there(lab: Path) -> None:
    error = only(lab / "lob.yaml")
    assert (error.code, error.hint) == ("LAB001", "this folder holds `lab.yaml`")


def test_a_folder_without_a_lab(tmp_path: Path) -> None:
    error = only(tmp_path)
    assert error.code == "LAB001"
    assert str(tmp_path / "lab.yaml") in error.summary
    assert "labctl init" in error.hint


def test_a_missing_overlay_is_named(lab: Path) -> None:
    error = only(lab, "local")
    assert error.code == "LAB001"
    assert "lab.local.yaml" in error.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(lab: Path) -> None:
    (lab / "lab.yaml").chmod(0)
    assert only(lab).summary == f"cannot read `{lab / 'lab.yaml'}`: permission denied"


def test_a_read_error(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    assert only(lab).summary == f"cannot read `{lab / 'lab.yaml'}`: permission denied"


@pytest.mark.parametrize("name", ["", "../x", "a/b"])
def test_what_is_no_name_of_an_overlay(lab: Path, name: str) -> None:
    assert only(lab, name).summary == f"`{name}` is no name of an overlay"


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_devices_are_not_read(path: str) -> None:
    assert only(Path(path)).summary == f"`{path}` is not a regular file"


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lab.yaml")
    assert "not a regular file" in only(tmp_path).summary


def test_a_folder_called_lab_yaml(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").mkdir()
    assert only(tmp_path).code == "LAB001"


def test_a_name_with_a_nul() -> None:
    assert only(Path("a\0b")).code == "LAB001"


def test_fifty_megabytes_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "lab.yaml").open("wb") as file:
        file.truncate(50_000_000)
    error = only(tmp_path)
    assert error.code == "LAB003"
    assert "47.7 MiB" in error.summary


def test_bytes_that_are_not_utf8() -> None:
    (error,) = decode("lab: x\nname: é".encode("latin-1"), "lab.yaml").diagnostics
    assert error.code == "LAB002"
    assert "byte 13 is 0xE9" in error.summary
    assert error.span is not None
    assert (error.span.line, error.span.column) == (2, 7)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf16(encoding: str) -> None:
    (error,) = decode("lab: x\n".encode(encoding), "lab.yaml").diagnostics
    assert error.code == "LAB002"
