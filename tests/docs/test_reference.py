"""Generated pages are up to date, and links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.reference.__main__ import COMMAND, stale
from tools.reference.pages import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("blueprints/*/*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_the_pages_are_what_the_code_says() -> None:
    assert [str(path.relative_to(ROOT)) for path in stale()] == [], f"run `{COMMAND}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_can_be_found() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text("utf-8")) if "://" not in link}
    assert [str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md") if p != index and p not in linked] == []
