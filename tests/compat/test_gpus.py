"""Names of cards as people and drivers write them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.compat import GpuFacts, gpus

NAMES = {
    "RTX 5090": ("rtx5090", "NVIDIA GeForce RTX 5090", "5090", "GeForce RTX-5090", "RTX 5090 32GB"),
    "P106-100": ("p106 100", "NVIDIA P106-100", "P106"),
    "Radeon 8060S": ("Strix Halo", "gfx1151", "AMD Ryzen AI Max+ 395", "Radeon 8060S Graphics", "RADV STRIX_HALO"),
    "Jetson AGX Orin 64GB": ("Jetson AGX Orin", "Orin", "NVIDIA Jetson AGX Orin", "Orin (nvgpu)"),
    "H100 80GB": ("H100", "H100 80GB SXM", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"),
    "A100 80GB": ("NVIDIA A100-SXM4-80GB", "A100"),
    "A100 40GB": ("NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-40GB"),
    "Tesla V100 32GB": ("Tesla V100-SXM2-32GB", "Tesla V100-PCIE-32GB"),
    "Tesla P100 16GB": ("Tesla P100-PCIE-16GB", "P100"),
    "T4": ("Tesla T4", "NVIDIA T4"),
    "RTX 3090": ("NVIDIA GeForce RTX 3090", "RTX 3090 24 GB", "3090"),
    "RTX 3060": ("RTX 3060 12GB", "3060"),
    "RTX 4060 Ti 16GB": ("NVIDIA GeForce RTX 4060 Ti 16GB",),
    "RTX 4090 Laptop": ("NVIDIA GeForce RTX 4090 Laptop GPU",),
    "RTX PRO 6000 Blackwell": ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000"),
    "RTX 6000 Ada": ("NVIDIA RTX 6000 Ada Generation",),
    "Quadro RTX 6000": ("RTX 6000",),
    "RTX A6000": ("NVIDIA RTX A6000", "A6000"),
    "RX 7900 XTX": ("AMD Radeon RX 7900 XTX", "7900xtx"),
    "GTX 1080 Ti": ("1080ti", "NVIDIA GeForce GTX 1080 Ti"),
    "GB10": ("NVIDIA GB10", "DGX Spark"),
    "Arc A770": ("Intel(R) Arc(TM) A770 Graphics", "A770"),
    "GTX TITAN X (Maxwell)": ("GTX TITAN X",),
    "TITAN X (Pascal)": ("NVIDIA TITAN X (Pascal)", "TITAN X"),
}


@pytest.mark.parametrize(("written", "name"), [(w, n) for n, ws in NAMES.items() for w in (n, *ws)])
def test_names_as_people_write_them(written: str, name: str) -> None:
    found = gpus.find(written)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("written", ["", "RTX", "RTX 5099", "RTX 3060 24GB", "gpu", "H100 40GB", "9999"])
def test_what_is_no_card(written: str) -> None:
    assert gpus.find(written) is None


@given(st.sampled_from(gpus.all_gpus()), st.randoms(use_true_random=False), st.sampled_from(("", "-", "_", "  ")))
def test_case_and_spaces_do_not_matter(gpu: GpuFacts, random: Random, space: str) -> None:
    for name in (gpu.name, *gpu.aliases):
        written = "".join(random.choice((c.lower(), c.upper())) for c in name).replace(" ", space)
        assert gpus.find(written) == gpu


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("RTX 5O90", "RTX 5090"),
        ("P106-10", "P106-100"),
        ("GTX1070 Tie", "GTX 1070 Ti"),
        ("Strix Hallo", "Radeon 8060S"),
    ],
)
def test_did_you_mean(written: str, meant: str) -> None:
    assert meant in gpus.nearest(written)
    problem = gpus.unknown(written)
    assert problem.code == "LAB075"
    assert f"`{meant}`" in problem.hint


def test_nothing_is_near_to_nonsense() -> None:
    assert gpus.nearest("toaster oven with crumb tray") == ()
    assert gpus.unknown("toaster oven with crumb tray").hint


def test_memory_is_what_cuda_reports() -> None:
    card = gpus.find("RTX 5090")
    assert card is not None
    assert card.memory == 32105 * 1024 * 1024
    assert card.memory_basis == "reported"
