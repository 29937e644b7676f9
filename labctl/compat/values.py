"""What the compatibility gate knows, is asked and answers, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from labctl.values import dataclass
from labctl.workload import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """One row of the card catalogue, ``labctl/data/gpus.csv``.

    Attributes:
        vendor: ``nvidia``, ``amd`` or ``intel``.
        name: the catalogue's name, e.g. ``RTX 5090``.
        aliases: other names that people and drivers use.
        architecture: the vendor's name of the generation, e.g. ``Pascal``, ``RDNA 3``.
        capability: CUDA compute capability such as ``8.6``; None for other vendors.
        gfx: AMD architecture such as ``gfx1151``; None for other vendors.
        memory_mib: MiB that an engine sees as total: CUDA's ``totalGlobalMem`` under Linux, not the figure of
            ``nvidia-smi``. For cards with unified memory, what the GPU may take by default.
        memory_basis: ``reported`` when read from an engine's log, ``derived`` when a cautious estimate from the
            nominal size.
        tdp_w: the vendor's power figure in watts, None where unknown. For information.
        unified: its memory is the host's memory.
        tegra: a Jetson before Thor, which needs builds for L4T rather than for servers.
        certain: False when a fact of the row was inferred.
        source: where the row comes from.
    """

    vendor: str
    name: str
    aliases: tuple[str, ...] = ()
    architecture: str
    capability: str | None
    gfx: str | None
    memory_mib: int
    memory_basis: str
    tdp_w: int | None
    unified: bool
    tegra: bool
    certain: bool
    source: str

    @property
    def memory(self) -> int:
        """Bytes that an engine sees as total."""
        return self.memory_mib * 1024 * 1024

    @property
    def code(self) -> str:
        """Its architecture in one phrase, e.g. ``compute capability 6.1`` or ``gfx1151``."""
        return f"compute capability {self.capability}" if self.capability else self.gfx or self.architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One row of the table of builds, ``labctl/data/builds.toml``.

    Attributes:
        id: unique; engine: the engine it belongs to; flavour: its name in lab.yaml.
        form: ``container`` or ``native``.
        version: the release, without a leading ``v``.
        image: a pinned image, None for native builds; package: a pinned Python package.
        match: a pattern for other tags of the same making.
        accelerator: ``cuda``, ``rocm``, ``vulkan`` or ``cpu``.
        cuda: version of the CUDA toolkit inside.
        sass: compute capabilities with machine code; ``12.0a`` runs on that one alone.
        ptx: compute capabilities whose PTX the driver compiles for later cards.
        gfx: AMD architectures with code.
        vendors: card vendors that a Vulkan build drives; min_capability: its oldest NVIDIA card.
        for_host: made on the host for its own cards and CPU.
        platforms: ``server``, ``tegra`` or both.
        arch: host architectures with an image.
        cpu_features: instruction sets that it needs beyond the baseline.
        min_driver: oldest NVIDIA driver; legacy_driver: the one for cards below ``legacy_below``.
        cpu_fallback: it also serves without a card.
        base: an image to build a server of one's own on; gateway: no model server.
        env: environment that selects this flavour.
        probe: what the image has to ask its health endpoint with.
        health_command: what to run inside instead, where it has nothing.
        kv: name of its rule for KV cache types.
        certain: False when a fact of the row was inferred; note: what else a person should know.
        source: where the row comes from.
    """

    id: str
    engine: str
    flavour: str
    form: str
    version: str
    image: str | None = None
    package: str | None = None
    match: str | None = None
    accelerator: str
    cuda: str | None = None
    sass: tuple[str, ...] = ()
    ptx: tuple[str, ...] = ()
    gfx: tuple[str, ...] = ()
    vendors: tuple[str, ...] = ()
    min_capability: str | None = None
    for_host: bool = False
    platforms: tuple[str, ...] = ("server",)
    arch: tuple[str, ...]
    cpu_features: tuple[str, ...] = ()
    min_driver: str | None = None
    legacy_driver: str | None = None
    legacy_below: str | None = None
    cpu_fallback: bool = False
    base: bool = False
    gateway: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    probe: Probe
    health_command: tuple[str, ...] = ()
    kv: str = "none"
    certain: bool = True
    note: str = ""
    source: str

    @property
    def artefact(self) -> str:
        """What to run: the image, the package, or words for a native build."""
        return self.image or self.package or f"{self.engine} {self.version} built on the host"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBuild:
    """A build that the lab declares itself (``build:`` or a private image), as far as it says.

    Attributes:
        version: release of the engine, e.g. ``b11549``.
        cuda: version of the CUDA toolkit.
        capabilities: compute capabilities it is compiled for; empty means those of the host's cards.
        cpu_features: instruction sets it was compiled with; None when not said.
        all_kv_quants: built with ``GGML_CUDA_FA_ALL_QUANTS``.
    """

    version: str | None = None
    cuda: str | None = None
    capabilities: tuple[str, ...] = ()
    cpu_features: frozenset[str] | None = None
    all_kv_quants: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A deployment on a host, as far as it matters here.

    Attributes:
        engine: e.g. ``llama.cpp``, ``vllm``, ``ollama``, ``container``.
        gpus: its cards; empty when it runs on the CPU.
        arch: ``x86_64`` or ``aarch64``.
        cpu_features: instruction sets beyond the baseline; None when unknown.
        form: ``container`` or ``native`` when the target allows only one.
        flavour, version, image, build: what the lab pins; None leaves the choice to the gate.
        driver: version of the NVIDIA driver, None when unknown.
        kv_cache: types of K and V.
        flash_attention: ``on``, ``off`` or ``auto``.
        dtype, quantization, attention_backend: vLLM's options, None when left out.
    """

    engine: str
    gpus: tuple[GpuFacts, ...] = ()
    arch: str = "x86_64"
    cpu_features: frozenset[str] | None = None
    form: str | None = None
    flavour: str | None = None
    version: str | None = None
    image: str | None = None
    build: OwnBuild | None = None
    driver: str | None = None
    kv_cache: tuple[str, str] = ("f16", "f16")
    flash_attention: str = "auto"
    dtype: str | None = None
    quantization: str | None = None
    attention_backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One reason why it cannot work, and what would.

    Attributes:
        code: a diagnostic code, ``LAB070`` to ``LAB078``.
        key: the option at fault: ``engine``, ``flavour``, ``image``, ``build``, ``kv_cache``, ``flash_attention``,
            ``dtype``, ``quantization``, ``attention_backend``, ``driver`` or ``arch``.
        summary: one sentence, no full stop, names in backticks.
        detail: further lines.
        hint: the remedy, in the imperative.
    """

    code: str
    key: str
    summary: str
    detail: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The gate's answer.

    Attributes:
        build: the build to use. With problems it is the one that came closest; None when the engine or the image is
            unknown to the table.
        accelerator: how it drives its cards; None when unknown.
        settings: engine options that the cards demand, e.g. ``{"dtype": "half"}``.
        env: environment that the build demands.
        problems: empty when it fits.
        notes: what is worth knowing and no problem.
    """

    build: Build | None
    accelerator: str | None
    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether nothing stands against it."""
        return not self.problems
