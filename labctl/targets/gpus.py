"""How programs are told which cards are theirs: the numbers differ by driver, so each way has its own rule."""

from __future__ import annotations

from labctl.placed import PlacedHost
from labctl.workload import Accelerator, GpuClaim, GpuDevice

_CUDA_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Without it CUDA numbers the fastest card first (gpustack#6041)."""


def is_nvidia(host: PlacedHost, claim: GpuClaim) -> bool:
    """Whether the cards are NVIDIA's, whichever way they are driven."""
    vendors = {gpu.index: gpu.vendor for gpu in host.gpus}
    return claim.accelerator is Accelerator.CUDA or vendors.get(claim.devices[0].index) == "nvidia"


def ids(claim: GpuClaim) -> list[str]:
    """Return what names the cards to NVIDIA's tools: UUIDs, or PCI positions when one is not known."""
    uuids = [device.uuid for device in claim.devices if device.uuid]
    return uuids if len(uuids) == len(claim.devices) else [str(device.index) for device in claim.devices]


def native(host: PlacedHost, claim: GpuClaim) -> dict[str, str]:
    """Return the variables that keep a program of the host to its cards."""
    match claim.accelerator:
        case Accelerator.CUDA:
            known = all(device.uuid for device in claim.devices)
            mask = ids(claim) if known else [_rank(host, device, "nvidia") for device in claim.devices]
            return _CUDA_ORDER | {"CUDA_VISIBLE_DEVICES": ",".join(mask)}
        case Accelerator.ROCM:
            return {"ROCR_VISIBLE_DEVICES": ",".join(_rank(host, device, "amd") for device in claim.devices)}
        case Accelerator.VULKAN:
            return _vulkan(host, claim)


def inside(host: PlacedHost, claim: GpuClaim) -> dict[str, str]:
    """Return the variables for a container that sees only its own NVIDIA cards, or all of another vendor's."""
    if not is_nvidia(host, claim):
        return native(host, claim)
    if claim.accelerator is Accelerator.VULKAN:
        return {}
    positions = sorted(device.index for device in claim.devices)
    order = [positions.index(device.index) for device in claim.devices]
    mask = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, order))} if order != sorted(order) else {}
    return _CUDA_ORDER | mask


def _rank(host: PlacedHost, device: GpuDevice, vendor: str) -> str:
    """Return a card's position among its vendor's cards: a driver does not count the others'."""
    others = [gpu.index for gpu in host.gpus if gpu.vendor == vendor]
    return str(others.index(device.index) if device.index in others else device.index)


def _vulkan(host: PlacedHost, claim: GpuClaim) -> dict[str, str]:
    """Return ggml's mask; without one it takes every card once, which a machine with one card should be left to."""
    wanted = [device.index for device in claim.devices]
    if len(host.gpus) <= 1 or wanted == [gpu.index for gpu in host.gpus]:
        return {}
    return {"GGML_VK_VISIBLE_DEVICES": ",".join(map(str, wanted))}
