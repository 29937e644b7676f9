"""The codes: each has a page, and each page is found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import labctl as package
from labctl.explain import UnknownCodeError, explain, pages
from tests.cli.running import labctl

ROOT = Path(package.__file__).parent
PACKAGE_IS_COMPLETE = True
"""Set to True once no code is reserved for a part that is still being written: then unused pages are errors."""


def used() -> set[str]:
    """Return every code in the package's Python and data files, the pages themselves left out."""
    files = [
        *ROOT.rglob("*.py"),
        *ROOT.rglob("data/*.csv"),
        *(f for f in ROOT.rglob("*.toml") if f.name != "codes.toml"),
    ]
    return {code for file in files for code in re.findall(r"\bLAB\d{3}\b", file.read_text("utf-8"))}


def test_every_code_has_a_page() -> None:
    assert used() - set(pages()) == set()


@pytest.mark.skipif(not PACKAGE_IS_COMPLETE, reason="codes are still being added: see PACKAGE_IS_COMPLETE")
def test_every_page_has_a_use() -> None:
    assert set(pages()) - used() == set()


@pytest.mark.parametrize("code", pages())
def test_pages_are_whole(code: str) -> None:
    page = explain(code)
    assert re.fullmatch(r"LAB\d{3}", page.code)
    assert page.title
    assert not page.title.endswith(".")
    assert page.text.endswith((".", "?"))
    assert page.remedy.endswith((".", "?"))


@pytest.mark.parametrize("spelling", ["LAB021", "lab021", "LAB21", "lab-21", "021", "21", " LAB021 "])
def test_spellings(spelling: str) -> None:
    assert explain(spelling).code == "LAB021"


@pytest.mark.parametrize(("code", "near"), [("LAB999", ""), ("LAB02", "LAB002"), ("LBA021", "LAB021"), ("x", "")])
def test_unknown_codes(code: str, near: str) -> None:
    if near == "LAB002":
        assert explain(code).code == near
        return
    with pytest.raises(UnknownCodeError, match=f"there is no code `{code}`.*{near}"):
        explain(code)


def test_the_command() -> None:
    ran = labctl("explain", "21")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("LAB021: An unknown key\n\nThe block has no such key.")
    assert all(len(line) <= 100 for line in ran.out.splitlines())
    assert json.loads(labctl("explain", "--json", "21").out)["code"] == "LAB021"


def test_the_command_with_an_unknown_code() -> None:
    ran = labctl("explain", "LBA021")
    assert (ran.code, ran.out) == (2, "")
    assert "LAB021" in ran.err


def test_the_cards() -> None:
    ran = labctl("explain", "gpus")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^RTX 3090 +Ampere +8\.6 +23\.\d GiB$", ran.out, re.MULTILINE)
    cards = json.loads(labctl("explain", "--json", "gpus").out)
    assert len(cards) == len(ran.out.splitlines()) > 50
    assert {"RTX 3090", "P106-100"} <= {card["name"] for card in cards}
