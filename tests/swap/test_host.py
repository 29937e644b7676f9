"""What the dashboard says of a machine, read from stand-in trees: files named and filled as Linux does it.

No test here has seen the hardware itself; the names are those of the kernel's and the vendors' documents (``host``).
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from labctl.swap.host import MIB, Machine
from labctl.swap.page import live

PLAIN = {
    "proc/meminfo": "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:   12000000 kB\n",
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
    "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 100 0 100 700 100 0 0 0 0 0\n",
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_input": "47000\n",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon1/name": "nvme\n",
    "sys/class/hwmon/hwmon1/temp1_input": "38850\n",
}
AMD = {
    "sys/class/drm/card1/device/mem_info_vram_total": str(24 << 30),
    "sys/class/drm/card1/device/mem_info_vram_used": str(3 << 30),
    "sys/class/drm/card1/device/mem_info_gtt_total": str(16 << 30),
    "sys/class/drm/card1/device/mem_info_gtt_used": "0",
    "sys/class/drm/card1/device/gpu_busy_percent": "93",
    "sys/class/drm/card1/device/product_name": "Radeon RX 7900 XTX",
    "sys/class/drm/card1/device/hwmon/hwmon4/temp1_input": "61000",
    "sys/class/drm/card1/device/hwmon/hwmon4/power1_average": "287000000",
    "sys/class/drm/card1-HDMI-A-1/status": "connected",
}
STRIX_HALO = {
    "sys/class/drm/card0/device/mem_info_vram_total": str(512 << 20),
    "sys/class/drm/card0/device/mem_info_vram_used": str(100 << 20),
    "sys/class/drm/card0/device/mem_info_gtt_total": str(96 << 30),
    "sys/class/drm/card0/device/mem_info_gtt_used": str(40 << 30),
    "sys/class/drm/card0/device/gpu_busy_percent": "7",
}
JETSON = {
    "sys/devices/platform/bus@0/17000000.gpu/load": "420",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "51343",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "49500",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal",
    "sys/class/thermal/thermal_zone2/temp": "-256000",  # how Tegra says that a part sleeps
}


def machine(root: Path, *trees: dict[str, str], nvidia_smi: str = "") -> Machine:
    """Return a machine of such files. ``nvidia_smi``: what a stand-in of that program prints."""
    for name, text in {name: text for tree in trees for name, text in tree.items()}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    program = root / "nvidia-smi"
    if nvidia_smi:
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{nvidia_smi}\nEND\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return Machine(str(root), str(program))


def test_a_plain_cpu(tmp_path: Path) -> None:
    """Memory without what can be given up, load, temperatures by chip, and the processors since the last look."""
    it = machine(tmp_path, PLAIN)
    found = it.look()
    assert found["memory"] == {"total": 16_000_000 << 10, "used": 4_000_000 << 10}
    assert found["load"] == 0.52
    assert found["temperatures"] == {"coretemp Package id 0": 47.0, "nvme": 38.85}
    assert found["gpus"] == []
    assert found["disk"]["total"] >= found["disk"]["used"] > 0
    assert found["cpu"] is None
    (tmp_path / "proc/stat").write_text("cpu  150 0 125 775 150 0 0 0 0 0\n")
    assert it.look()["cpu"] == 37.5


def test_nvidia(tmp_path: Path) -> None:
    """Two cards as nvidia-smi says; what a card does not tell is None."""
    said = (
        "0, GPU-1, NVIDIA GeForce RTX 3060, 12288, 2048, 37, 55, 98.31\n1, GPU-2, P106-100, 6075, 10, [N/A], 41, [N/A]"
    )
    first, second = machine(tmp_path, PLAIN, nvidia_smi=said).look()["gpus"]
    assert (first["index"], first["total"], first["used"]) == (0, 12288 * MIB, 2048 * MIB)
    assert (first["busy"], first["temperature"], first["power"]) == (37, 55, 98.31)
    assert (second["name"], second["busy"], second["power"]) == ("P106-100", None, None)


def test_amd(tmp_path: Path) -> None:
    """Its own memory, and its own sensors: not a connector beside it."""
    (card,) = machine(tmp_path, PLAIN, AMD).look()["gpus"]
    assert (card["name"], card["total"], card["used"]) == ("Radeon RX 7900 XTX", 24 << 30, 3 << 30)
    assert (card["busy"], card["temperature"], card["power"]) == (93, 61.0, 287.0)


def test_a_card_in_the_machines_memory(tmp_path: Path) -> None:
    """Strix Halo: what counts is what it may take of the machine's memory, not the carve-out."""
    (card,) = machine(tmp_path, PLAIN, STRIX_HALO).look()["gpus"]
    assert (card["total"], card["used"], card["temperature"]) == (96 << 30, 40 << 30, None)


def test_jetson(tmp_path: Path) -> None:
    """Its card has the machine's memory; its zones are named, and one that sleeps is left out."""
    found = machine(tmp_path, PLAIN, JETSON).look()
    (card,) = found["gpus"]
    assert (card["name"], card["total"], card["busy"]) == ("Jetson GPU", 16_000_000 << 10, 42.0)
    assert {k: v for k, v in found["temperatures"].items() if "thermal" in k} == {
        "cpu-thermal": 51.343,
        "gpu-thermal": 49.5,
    }


@pytest.mark.parametrize(
    ("own", "gpus", "found"),
    [
        ({"box:0", "box:1"}, [{"index": 1}, {"index": 0}], {"box:0": 1, "box:1": 0}),
        ({"box:0"}, [{"index": 0}, {"index": 0}], {}),
        (set(), [{"index": 0}], {}),
    ],
    ids=["by their place on the bus", "not where two have the same", "not those of another host"],
)
def test_budget_beside_what_is_live(own: set[str], gpus: list[dict[str, Any]], found: dict[str, int]) -> None:
    """A card's budget stands beside what the machine says of that card, or of none."""
    assert live([{"id": "box:0"}, {"id": "box:1"}], own, gpus) == found
