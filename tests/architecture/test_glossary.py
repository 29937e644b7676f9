"""The glossary speaks of things that exist, each once."""

from __future__ import annotations

import pkgutil
import re
from collections import Counter

import pytest

from tests.architecture.source import ROOT

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("reference", sorted(set(re.findall(r"`(labctl\.[\w.]+)`", TEXT))))
def test_what_it_names_exists(reference: str) -> None:
    assert pkgutil.resolve_name(reference) is not None


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:labctl/|blueprints/|templates/)[\w./]*)`", TEXT))))
def test_the_files_it_names_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_word_stands_once() -> None:
    terms = re.findall(r"^\| \*\*(.+?) \|", TEXT, flags=re.MULTILINE)
    assert [term for term, count in Counter(terms).items() if count > 1] == []
    assert terms
