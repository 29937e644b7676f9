"""What a host is: processor, memory, cards, groups, disks. Read-only, and nothing that waits for a network."""

from __future__ import annotations

import contextlib
import glob
import grp
import os
import re
import subprocess

from labctl.agent.call import Call, Reply, answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits")
SMI_TIMEOUT = 20
"""Seconds: without a persistence daemon it wakes every card first."""
VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
DISPLAYS = ("0x0300", "0x0302", "0x0380", "0x1200")
"""PCI classes of graphics cards and accelerators, without their last byte."""


def facts(call: Call) -> Reply:
    """Return what the host is; ``paths`` are folders whose file systems are asked for their space.

    ``top`` is the folder that /proc and /sys are looked for in, "" for the real ones.
    """
    top = str(call.values.get("top", ""))
    return answer(
        arch=os.uname().machine,
        kernel=os.uname().release,
        system=_system(top),
        memory=_memory(top),
        cores=os.cpu_count() or 0,
        features=_features(top),
        groups=_groups("video", "render"),
        cards=_nvidia(top) + _amd(top),
        bus=_bus(top),
        disks={path: space for path in call.values.get("paths", ()) if (space := _space(path)) is not None},
    )


def _nvidia(top: str) -> list[dict[str, Any]]:
    """Ask nvidia-smi, where there is a driver. A card that fell off the bus is not in its list."""
    if not os.path.exists(f"{top}/proc/driver/nvidia/version"):
        return []
    try:
        ran = subprocess.run(
            NVIDIA_SMI, stdin=subprocess.DEVNULL, capture_output=True, timeout=SMI_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in ran.stdout.decode(errors="replace").splitlines():
        uuid, name, memory, driver = ([word.strip() for word in line.split(",")] + [""] * 4)[:4]
        if uuid.startswith(("GPU-", "MIG-")):
            size = int(memory) << 20 if memory.isdigit() else None
            found.append({"vendor": "nvidia", "name": name, "uuid": uuid, "memory": size, "driver": driver})
    return found


def _amd(top: str) -> list[dict[str, Any]]:
    """Return the cards that the amdgpu driver has."""
    found = []
    for path in sorted(glob.glob(f"{top}/sys/class/drm/card[0-9]*/device/mem_info_vram_total")):
        folder = os.path.dirname(path)
        unique = _text(f"{folder}/unique_id").strip()
        size = _text(path).strip()
        found.append(
            {
                "vendor": "amd",
                "name": _text(f"{folder}/product_name").strip(),
                "uuid": f"GPU-{unique}" if unique else "",
                "memory": int(size) if size.isdigit() else None,
                "driver": "",
            }
        )
    return found


def _bus(top: str) -> dict[str, int]:
    """Count the graphics cards on the PCI bus by vendor, whether a driver has them or not."""
    found: dict[str, int] = {}
    for path in glob.glob(f"{top}/sys/bus/pci/devices/*/class"):
        vendor = VENDORS.get(_text(os.path.join(os.path.dirname(path), "vendor")).strip())
        if vendor is not None and _text(path).startswith(DISPLAYS):
            found[vendor] = found.get(vendor, 0) + 1
    return found


def _memory(top: str) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(f"{top}/proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _features(top: str) -> list[str]:
    found = re.search(r"^(?:flags|Features)\s*: (.*)", _text(f"{top}/proc/cpuinfo"), re.MULTILINE)
    return sorted(found[1].split()) if found else []


def _system(top: str) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text(f"{top}/etc/os-release"), re.MULTILINE)
    return found[1] if found else ""


def _groups(*names: str) -> dict[str, int]:
    found = {}
    for name in names:
        with contextlib.suppress(KeyError):
            found[name] = grp.getgrnam(name).gr_gid
    return found


def _space(path: str) -> dict[str, int] | None:
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    with contextlib.suppress(OSError):
        space = os.statvfs(path or "/")
        return {"total": space.f_blocks * space.f_frsize, "free": space.f_bavail * space.f_frsize}
    return None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
