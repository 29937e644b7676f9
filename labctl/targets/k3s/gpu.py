"""How a pod gets its cards: it asks for a number of them, and the cluster chooses which. It cannot name one."""

from __future__ import annotations

from typing import Any, Final

from labctl.placed import PlacedHost
from labctl.targets import gpus
from labctl.targets.k3s.settings import Settings, resource_of
from labctl.workload import Accelerator, GpuClaim

DEVICES: Final = ("/dev/kfd", "/dev/dri")


def vendor(host: PlacedHost, claim: GpuClaim) -> str:
    """Return whose cards they are."""
    if gpus.is_nvidia(host, claim):
        return "nvidia"
    known = {gpu.index: gpu.vendor for gpu in host.gpus}
    return known.get(claim.devices[0].index, "amd") if claim.devices else "amd"


def request(host: PlacedHost, claim: GpuClaim) -> dict[str, str]:
    """Return the cards as a resource; who only looks at them takes none."""
    return {} if claim.observes else {resource_of(vendor(host, claim)): str(len(claim.devices))}


def variables(host: PlacedHost, claim: GpuClaim) -> dict[str, str]:
    """Return the variables that go with NVIDIA's runtime; the device plugin says which cards."""
    if vendor(host, claim) != "nvidia":
        return {}
    order = {} if claim.observes else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    looks = {"NVIDIA_VISIBLE_DEVICES": "all"} if claim.observes else {}
    graphics = claim.accelerator is Accelerator.VULKAN
    return order | looks | ({"NVIDIA_DRIVER_CAPABILITIES": "all"} if graphics else {})


def pod(host: PlacedHost, claim: GpuClaim, site: Settings) -> dict[str, Any]:
    """Return the runtime, and that it may run where nodes are kept free for cards."""
    nvidia = vendor(host, claim) == "nvidia"
    runtime = {"runtimeClassName": site.runtime_class} if nvidia and site.runtime_class else {}
    key = resource_of(vendor(host, claim))
    return {**runtime, "tolerations": [{"key": key, "operator": "Exists", "effect": "NoSchedule"}]}


def privileged(host: PlacedHost, claim: GpuClaim) -> bool:
    """Whether it looks at cards that no runtime hands out, and so needs the devices themselves."""
    return claim.observes and vendor(host, claim) != "nvidia"
