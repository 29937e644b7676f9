"""The answer of every memory model: bytes by device and part, and how each number came about."""

from __future__ import annotations

from labctl.values import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One derivation in words: ``label`` = ``bytes``, because ``formula``, as stated by ``source``."""

    label: str
    bytes: int
    formula: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBytes:
    """What one process takes on one GPU, in bytes. ``other`` fits none of the parts: CUDA graphs, non-torch."""

    weights: int = 0
    context: int = 0
    compute: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """The sum of the parts, in bytes."""
        return self.weights + self.context + self.compute + self.other


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of one running server (one replica).

    Attributes:
        devices: one entry per GPU it uses, in the order of its devices.
        host: bytes of system RAM that its process needs beside the GPUs.
        steps: the derivation, in the order a reader wants it.
        process: bytes that the process takes on each card beyond ``devices`` (contexts, kernels); None: the ledger's
            default for its kind of card.
        declared: True when the numbers were stated in lab.yaml rather than computed.
        exact: False when a model fact was missing and a bound was used instead.
        notes: sentences about assumptions, for ``--explain``.
    """

    devices: tuple[DeviceBytes, ...] = ()
    host: int = 0
    steps: tuple[Step, ...] = ()
    process: int | None = None
    declared: bool = False
    exact: bool = True
    notes: tuple[str, ...] = ()
