"""The machine as the dashboard shows it: memory, load, disk, temperatures and cards, each from the right source.

=========  ==================================================================================================
RAM, load  ``/proc/meminfo``, ``/proc/stat``, ``/proc/loadavg``
degrees    ``/sys/class/hwmon/*/temp*_input``, ``/sys/class/thermal/thermal_zone*/temp`` (milli-degrees Celsius)
NVIDIA     ``nvidia-smi --query-gpu=…`` (MiB, %, degrees, W)
AMD        ``/sys/class/drm/card*/device/mem_info_vram_*``, ``mem_info_gtt_*``, ``gpu_busy_percent``, ``hwmon`` (Linux,
           amdgpu)
Jetson     memory is the machine's own; load from ``/sys/devices/**/gpu.0/load`` (per mille; L4T, nvgpu)
=========  ==================================================================================================
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final

MIB: Final = 1 << 20
NVIDIA_EVERY: Final = 3.0
"""Seconds between two calls of ``nvidia-smi``, which takes a good part of one."""
_QUERY: Final = "index,uuid,name,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw"
_JETSON: Final = (
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/bus@0/17000000.gpu/load",
)


class Machine:
    """Looks at the machine. ``root`` stands for ``/`` in tests."""

    def __init__(self, root: str = "/", nvidia_smi: str = "nvidia-smi") -> None:
        self._root, self._nvidia_smi = Path(root), nvidia_smi
        self._ticks: tuple[int, int] | None = None
        self._nvidia: tuple[float, list[dict[str, Any]]] = (-NVIDIA_EVERY, [])

    def look(self) -> dict[str, Any]:
        """Return everything there is to see; what cannot be read is None or left out. Bytes, %, degrees Celsius."""
        disk = shutil.disk_usage(self._root)
        return {
            "memory": self._memory(),
            "cpu": self._cpu(),
            "load": self._load(),
            "disk": {"total": disk.total, "used": disk.total - disk.free},
            "temperatures": self._temperatures(),
            "gpus": [*self._nvidia_cards(), *self._amd_cards(), *self._jetson()],
        }

    def _text(self, path: str) -> str:
        try:
            return (self._root / path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _number(self, path: str) -> int | None:
        text = self._text(path)
        return int(text) if text.lstrip("-").isdigit() else None

    def _memory(self) -> dict[str, int]:
        rows = (line.split() for line in self._text("proc/meminfo").splitlines())
        values = {row[0].rstrip(":"): int(row[1]) << 10 for row in rows if len(row) >= 2 and row[1].isdigit()}
        total = values.get("MemTotal", 0)
        return {"total": total, "used": total - values.get("MemAvailable", total)}

    def _cpu(self) -> float | None:
        """Return the share of time since the last look in which processors worked, in percent."""
        line = self._text("proc/stat").partition("\n")[0].split()[1:]
        if not line:
            return None
        ticks = [int(x) for x in line]
        busy, whole = sum(ticks) - ticks[3] - ticks[4], sum(ticks)
        before, self._ticks = self._ticks, (busy, whole)
        if before is None or whole == before[1]:
            return None
        return round(100 * (busy - before[0]) / (whole - before[1]), 1)

    def _load(self) -> float | None:
        text = self._text("proc/loadavg")
        return float(text.split()[0]) if text else None

    def _temperatures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for path in sorted(self._root.glob("sys/class/hwmon/*/temp*_input")):
            chip = self._text(str((path.parent / "name").relative_to(self._root)))
            label = self._text(str(path.with_name(path.name.replace("_input", "_label")).relative_to(self._root)))
            self._add_temperature(found, f"{chip} {label}".strip(), path)
        for path in sorted(self._root.glob("sys/class/thermal/thermal_zone*/temp")):
            kind = self._text(str(path.with_name("type").relative_to(self._root)))
            self._add_temperature(found, kind or path.parent.name, path)
        return found

    def _add_temperature(self, found: dict[str, float], name: str, path: Path) -> None:
        value = self._number(str(path.relative_to(self._root)))
        if value is not None and 0 < value < 150_000:
            found.setdefault(name, value / 1000)

    def _nvidia_cards(self) -> list[dict[str, Any]]:
        looked, cards = self._nvidia
        if time.monotonic() - looked < NVIDIA_EVERY:
            return cards
        try:
            ran = subprocess.run(
                [self._nvidia_smi, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=5,
                check=False,
            )
            cards = [
                _nvidia(row) for row in csv.reader(ran.stdout.splitlines(), skipinitialspace=True) if len(row) == 8
            ]
        except (OSError, subprocess.TimeoutExpired):
            cards = []
        self._nvidia = (time.monotonic(), cards)
        return cards

    def _amd_cards(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        devices = self._root.glob("sys/class/drm/card[0-9]*/device")  # beside them: card0-HDMI-A-1 and so on
        for device in sorted(devices, key=lambda d: (len(d.parent.name), d.parent.name)):
            at = str(device.relative_to(self._root))
            total = self._number(f"{at}/mem_info_vram_total")
            if total is None:
                continue
            shared = self._number(f"{at}/mem_info_gtt_total") or 0
            unified = shared > total  # a carve-out beside system memory: Strix Halo and other APUs
            kind = "gtt" if unified else "vram"
            found.append(
                {
                    "index": len(found),
                    "name": self._text(f"{at}/product_name") or "AMD GPU",
                    "total": shared if unified else total,
                    "used": self._number(f"{at}/mem_info_{kind}_used"),
                    "busy": self._number(f"{at}/gpu_busy_percent"),
                    "temperature": self._sensor(device, "temp1_input", 1000),
                    "power": self._sensor(device, "power1_average", 1_000_000),
                }
            )
        return found

    def _sensor(self, device: Path, name: str, unit: int) -> float | None:
        """Return what a card's own sensor says."""
        for path in sorted(device.glob(f"hwmon/hwmon*/{name}")):
            value = self._number(str(path.relative_to(self._root)))
            if value is not None:
                return value / unit
        return None

    def _jetson(self) -> list[dict[str, Any]]:
        for path in _JETSON:
            load = self._number(path)
            if load is not None:
                return [{"index": 0, "name": "Jetson GPU", **self._memory(), "busy": load / 10}]
        return []


def _nvidia(row: list[str]) -> dict[str, Any]:
    def number(text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            return None  # [N/A]

    total, used = number(row[3]), number(row[4])
    return {
        "index": int(row[0]),
        "uuid": row[1],
        "name": row[2],
        "total": None if total is None else int(total * MIB),
        "used": None if used is None else int(used * MIB),
        "busy": number(row[5]),
        "temperature": number(row[6]),
        "power": number(row[7]),
    }
