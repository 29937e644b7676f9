"""docs/compatibility.md is the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.compat import builds, gpus
from labctl.compat.page import page

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


def test_the_page_is_up_to_date(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("update_snapshots", default=False):
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run `pytest tests/compat --snapshot-update` and read the difference"
    )


def test_every_row_is_on_the_page() -> None:
    text = page()
    for gpu in gpus.all_gpus():
        assert f"| {gpu.name} |" in text
    for build in builds.all_builds():
        assert f"`{build.artefact}`" in text


def test_every_table_is_rectangular() -> None:
    blocks = [block.splitlines() for block in page().split("\n\n") if block.startswith("|")]
    assert len(blocks) == 5
    for block in blocks:
        assert len({line.replace(r"\|", "").count("|") for line in block}) == 1
