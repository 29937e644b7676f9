"""The neighbour on a card starts when memory has stopped growing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from labctl.artefact import HostRoot
from labctl.hosts import settling
from labctl.hosts.base import Site, Stopped
from labctl.hosts.local import LocalShell

GROWING = """#!/bin/sh
n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) >{count}
[ $n -gt {steps} ] && n={steps}
echo $((1000 + n * 500)); echo 77
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(settling, "POLL", 0.01)
    return Site(root=HostRoot(host="h", root="/", state="s"), shell=LocalShell(), folder="/")


def card(tmp_path: Path, steps: int) -> Path:
    program, count = tmp_path / "nvidia-smi", tmp_path / "count"
    program.write_text(GROWING.format(count=count, steps=steps))
    program.chmod(0o755)
    return count


def test_it_waits_until_memory_stops_growing(site: Site, tmp_path: Path) -> None:
    count = card(tmp_path, steps=4)
    settling.settle(site, lambda: None)
    assert int(count.read_text()) == 6, "five different values, and the last one once more"


def test_memory_that_never_stops_growing_holds_nobody_up_for_ever(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(tmp_path, steps=10_000)
    monkeypatch.setattr(settling, "LIMIT", 0.3)
    started = time.monotonic()
    settling.settle(site, lambda: None)
    assert 0.25 < time.monotonic() - started < 5


def test_without_a_card_there_is_nothing_to_wait_for(site: Site) -> None:
    def asked() -> None:
        raise AssertionError

    if list(Path("/sys/class/drm").glob("card*/device/mem_info_vram_used")):
        pytest.skip("this machine has a card")
    settling.settle(site, asked)


def test_it_can_be_interrupted(site: Site, tmp_path: Path) -> None:
    def stop() -> None:
        raise Stopped

    card(tmp_path, steps=10_000)
    with pytest.raises(Stopped):
        settling.settle(site, stop)
