"""Disk, file systems and boot loader: a layout of labctl's, or the file that NixOS' installer wrote on the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from labctl.artefact import File
from labctl.emit import nix
from labctl.emit.nix import Value
from labctl.placed import PlacedHost
from labctl.targets.nixos import folder

GIVEN: Final = "hardware-configuration.nix"
"""The file of lab.yaml's ``hardware`` in the flake."""
KEPT: Final = 10
"""Generations in the boot menu: /boot holds a kernel and an initial RAM disk of each."""
INITRD: Final = (
    "ahci",
    "nvme",
    "sd_mod",
    "sr_mod",
    "usb_storage",
    "usbhid",
    "virtio_blk",
    "virtio_pci",
    "virtio_scsi",
    "xhci_pci",
)
"""What finds the disks of machines and of virtual ones (nixpkgs, nixos/modules/profiles/qemu-guest.nix)."""


def module(host: PlacedHost) -> Mapping[str, Value]:
    """Return ``hardware.nix``."""
    options = host.machine or {}
    if options.get("disk"):
        return _layout(host, str(options["disk"]))
    if options.get("hardware"):
        return {"imports": [nix.PathRef(f"./{GIVEN}")], **_loader(str(options.get("boot") or ""))}
    return {}


def files(host: PlacedHost) -> Iterator[File]:
    """Yield the file that lab.yaml names."""
    content = (host.machine or {}).get("hardware_text")
    if content is not None and not (host.machine or {}).get("disk"):
        origin = (*host.origin, "nixos", "hardware")
        path = folder.module(host, GIVEN)
        yield File(host=host.name, path=path, content=str(content).encode(), origin=origin)


def _layout(host: PlacedHost, disk: str) -> Mapping[str, Value]:
    """Return one disk that boots with BIOS and with UEFI, as disko's example ``hybrid.nix`` has it."""
    legacy = host.arch == "x86_64"
    esp: dict[str, Value] = {"type": "filesystem", "format": "vfat", "mountpoint": "/boot"}
    esp["mountOptions"] = ["umask=0077"]
    partitions: dict[str, Value] = {"boot": {"size": "1M", "type": "EF02"}} if legacy else {}
    partitions["ESP"] = {"size": "1G", "type": "EF00", "content": esp}
    partitions["root"] = {"size": "100%", "content": {"type": "filesystem", "format": "ext4", "mountpoint": "/"}}
    grub: dict[str, Value] = {"enable": True, "efiSupport": True, "efiInstallAsRemovable": True}
    if not legacy:
        grub["devices"] = ["nodev"]  # elsewhere disko adds the disk of the partition for BIOS
    grub["configurationLimit"] = KEPT
    main: dict[str, Value] = {"type": "disk", "device": disk, "content": {"type": "gpt", "partitions": partitions}}
    note = "made by the first install only: an activation never touches a partition"
    microcode: dict[str, Value] = {"amd": {"updateMicrocode": True}, "intel": {"updateMicrocode": True}}
    hardware: dict[str, Value] = {"enableRedistributableFirmware": True}
    return {
        "disko": {"devices": {"disk": {"main": nix.Noted(main, note)}}},
        "boot": {"loader": {"grub": grub}, "initrd": {"availableKernelModules": list(INITRD)}},
        "hardware": {**hardware, "cpu": microcode} if legacy else hardware,
    }


def _loader(boot: str) -> Mapping[str, Value]:
    """Return the boot loader: systemd-boot, GRUB in a disk's boot record, or that of the given file."""
    match boot:
        case "uefi":
            loader: dict[str, Value] = {
                "systemd-boot": {"enable": True, "configurationLimit": KEPT},
                "efi": {"canTouchEfiVariables": True},
            }
        case "" | "given":
            return {}
        case disk:
            loader = {"grub": {"enable": True, "device": disk, "configurationLimit": KEPT}}
    return {"boot": {"loader": loader}}
