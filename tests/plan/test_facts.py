"""What lab.yaml says of a host, beside what the host says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labctl.diagnostics import Severity
from labctl.placed import PlacedGpu, PlacedHost, Places
from labctl.plan.facts import differences
from labctl.plan.observed import Facts, SeenGpu

GIB = 1 << 30
UUID = "GPU-00000000-0000-0000-0000-00000000000a"
CARD = PlacedGpu(
    index=0, model="RTX 3090", vendor="nvidia", memory=24 * GIB, uuid=UUID, origin=("hosts", "h", "gpus", 0)
)
HOST = PlacedHost(
    name="h",
    lab="lab",
    address="h",
    bind="h",
    target="compose",
    places=Places(root="/", config="opt", state="var", models="/m"),
    memory=64 * GIB,
    cpu_features=frozenset({"avx2", "sse42"}),
    gpus=(CARD,),
    origin=("hosts", "h"),
)
SEEN = SeenGpu(vendor="nvidia", name="NVIDIA GeForce RTX 3090", uuid=UUID, memory=24 * GIB, driver="580.65.06")
FACTS = Facts(
    arch="x86_64",
    memory=62 * GIB,
    features=frozenset({"avx2", "sse4_2"}),
    gpus=(SEEN,),
    bus={"nvidia": 1},
    groups={"video": 44, "render": 105},
)
AMD = replace(CARD, vendor="amd", uuid=None)


def test_a_host_that_is_as_declared() -> None:
    assert list(differences(HOST, FACTS, "580.65")) == []
    assert list(differences(replace(HOST, gpus=()), FACTS)) == [], "more than declared is nobody's problem"


@pytest.mark.parametrize(
    ("host", "facts", "path", "words"),
    [
        (HOST, replace(FACTS, arch="aarch64"), ("arch",), "aarch64"),
        (HOST, replace(FACTS, memory=31 * GIB), ("memory",), "31 GiB"),
        (HOST, replace(FACTS, features=frozenset({"sse4_2"})), ("cpu", "features"), "avx2"),
        (HOST, replace(FACTS, gpus=()), ("gpus",), "none of 1 (on the PCI bus: 1)"),
        (HOST, replace(FACTS, gpus=(replace(SEEN, uuid="GPU-b"),)), ("gpus", 0, "uuid"), UUID),
        (HOST, replace(FACTS, gpus=(replace(SEEN, memory=12 * GIB),)), ("gpus", 0), "12 GiB"),
        (HOST, replace(FACTS, gpus=(replace(SEEN, driver="535.1"),)), ("driver",), "535.1, not 580.65"),
        (
            replace(HOST, gpus=(AMD,), group_ids=(44, 992)),
            replace(FACTS, gpus=(SeenGpu(vendor="amd"),)),
            ("group_ids",),
            "105",
        ),
    ],
)
def test_each_difference_is_a_warning_at_its_place(
    host: PlacedHost, facts: Facts, path: tuple[str | int, ...], words: str
) -> None:
    (found,) = differences(host, facts, "580.65")
    assert (found.code, found.severity, found.path) == ("LAB195", Severity.WARNING, ("hosts", "h", *path))
    assert words in found.summary
    assert found.hint


def test_what_nobody_knows_is_no_difference() -> None:
    assert list(differences(replace(HOST, gpus=()), Facts(), "580.65")) == []
