"""The rules of ``labctl/data/builds.toml`` beside the builds themselves, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from labctl.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRule:
    """Which pairs of K and V types a backend has attention kernels for.

    Attributes:
        pairs: ``K-V``; ``*`` for every pair.
        all_quants: types that may be mixed freely in a build with every kernel (``GGML_CUDA_FA_ALL_QUANTS``).
        quantised_v_needs_flash_attention: the engine refuses a quantised V without flash-attention.
        min_capability: oldest NVIDIA card per type.
    """

    name: str
    pairs: tuple[str, ...]
    all_quants: tuple[str, ...] = ()
    quantised_v_needs_flash_attention: bool = False
    min_capability: Mapping[str, str] = field(default_factory=dict)
    certain: bool = True
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashRule:
    """From which release on an engine has flash-attention on an accelerator."""

    engine: str
    accelerator: str
    min_capability: str | None = None
    since: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRule:
    """The compute capabilities that one of vLLM's attention backends has code for."""

    backend: str
    min_capability: str
    max_capability: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRule:
    """Options that an engine must be given on a range of cards."""

    engine: str
    min_capability: str
    max_capability: str
    set: Mapping[str, str]
    why: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatRule:
    """The cards that can compute with a number format or a quantisation.

    Attributes:
        names: as the engine's option spells it.
        kind: ``dtype`` or ``quantization``.
        min_capability: oldest NVIDIA card; native_capability: oldest that computes in it rather than widening it.
        amd: whether it works on AMD at all; gfx: the AMD architectures, empty for all.
        instead: a value to use where it does not work.
        weak: what happens between ``min_capability`` and ``native_capability``.
    """

    engine: str
    names: tuple[str, ...]
    kind: str
    min_capability: str
    native_capability: str | None = None
    amd: bool
    gfx: tuple[str, ...] = ()
    instead: str = ""
    weak: str = ""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """What a CUDA toolkit, from this version on, can compile for."""

    cuda: str
    lowest: str
    highest: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFeature:
    """An instruction set beyond the baseline; ``option`` is the llama.cpp build option that uses it."""

    name: str
    arch: str
    implies: tuple[str, ...] = ()
    option: str | None = None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuModel:
    """Processors and the instruction sets that they have; ``like`` is a pattern for the name that the kernel prints."""

    like: str
    features: tuple[str, ...]
    source: str
