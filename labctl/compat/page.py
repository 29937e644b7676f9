"""The text of docs/compatibility.md, from the tables themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labctl.compat import builds, gpus
from labctl.compat.gate import gate
from labctl.compat.values import Ask, Build, GpuFacts

_HEAD = """\
# Compatibility: cards, builds, formats

<!-- Written by labctl/compat/page.py from gpus.csv and builds.toml: do not edit, see the end of the page. -->

`labctl validate` asks one gate about every deployment: does this engine, in this build, run on these cards, this CPU,
this driver? The gate only evaluates tables, and every row of them names its source. Where labctl may choose, it takes
the first build that fits; where none does, it says why and which engine, image or build would.
"""

_CARDS = """\
## Cards

Memory is what an engine sees as total (CUDA's `totalGlobalMem` under Linux): `nvidia-smi` shows more, 32607 MiB
instead of 32105 for an RTX 5090. A `~` marks a cautious estimate from the nominal size where no log of such a card
was at hand: 1.5 % less than nominal up to Pascal and for HBM, 3.5 % and at least 400 MiB less from Turing on, 9 %
less for cards with error-correcting GDDR, 8 % less of a machine's RAM for unified memory. `memory:` of a card in
lab.yaml overrides it. The power figure is the vendor's; labctl only compares `power_limit` with it. A `?` marks rows
that were inferred rather than read.
"""

_ADDING = """\
## Adding a row

**A card** is one line of `labctl/data/gpus.csv`: vendor, name, other names separated by `|`, generation, compute
capability (NVIDIA) or gfx (AMD), MiB, `reported` or `derived`, watts, unified, tegra (a Jetson before Thor), certain,
source. The source says where capability and memory were read: a documentation page, or the log line `Device 0: …,
VRAM: … MiB` of llama.cpp.

**A build** is one `[[build]]` of `labctl/data/builds.toml`, above those it is better than: the order is the order of
choice. For a new release of a build that is made in the same way, change `version` and `image`. `sass` and `ptx` come
from the project's build files (`CMAKE_CUDA_ARCHITECTURES`, `TORCH_CUDA_ARCH_LIST`), never from memory; `probe` is
what the image has on board to ask its health endpoint with.

Then run `pytest tests/compat --snapshot-update`, which writes this page anew, and read the difference.
"""

_GENERATIONS = (
    "Tesla K40",
    "GTX 980 Ti",
    "P106-100",
    "Tesla P100 16GB",
    "Tesla V100 16GB",
    "T4",
    "RTX 3070",
    "RTX 4090",
    "H100 80GB",
    "RTX 5090",
    "GB10",
    "Jetson AGX Orin 64GB",
    "RX 580",
    "Instinct MI50 32GB",
    "RX 6800 XT",
    "RX 7900 XTX",
    "Radeon 8060S",
    "Radeon 780M",
    "Arc A770",
)


def page() -> str:
    """Return the page as Markdown."""
    parts = (_HEAD, _matrix(), _builds(), _kv(), _formats(), _CARDS, _cards(), _ADDING)
    return "\n".join(parts)


def _matrix() -> str:
    engines = [e for e in builds.engines() if e != "container"]
    rows = ([f"{gpu.name} ({gpu.code})", *(_cell(e, gpu) for e in engines)] for gpu in _examples())
    return f"## Which engine on which card\n\n{_table(['card', *engines], rows)}"


def _examples() -> Iterator[GpuFacts]:
    found = (gpus.find(name) for name in _GENERATIONS)
    return (gpu for gpu in found if gpu)


def _cell(engine: str, gpu: GpuFacts) -> str:
    arch = "aarch64" if gpu.tegra or gpu.name == "GB10" else "x86_64"
    verdict = gate(Ask(engine=engine, gpus=(gpu,), arch=arch))
    if verdict.build is None or verdict.problems:
        return "no"
    settings = "".join(f", `{k}: {v}`" for k, v in verdict.settings.items())
    return f"{verdict.build.flavour}{settings}"


def _builds() -> str:
    head = ["engine", "flavour", "image or package", "code for", "hosts", "CPU needs", "driver", "probe", "source"]
    return f"## Builds\n\n{_table(head, (_build_row(b) for b in builds.all_builds()))}"


def _build_row(build: Build) -> list[str]:
    code = " ".join(build.sass or build.gfx or build.vendors) or ("the host's cards" if build.for_host else "")
    ptx = f"; PTX {' '.join(build.ptx)}" if build.ptx else ""
    cuda = f"CUDA {build.cuda}: " if build.cuda else ""
    legacy = f" ({build.legacy_driver} below {build.legacy_below})" if build.legacy_driver else ""
    return [
        build.engine,
        build.flavour,
        f"`{build.artefact}`",
        f"{cuda}{code}{ptx}" or "CPU",
        " ".join(build.arch),
        " ".join(build.cpu_features),
        f"{build.min_driver or ''}{legacy}",
        " ".join(build.health_command) or build.probe.value,
        build.source + ("" if build.certain else " (?)"),
    ]


def _kv() -> str:
    rules = {b.kv: builds.kv_rule(b.kv) for b in builds.all_builds() if b.kv != "none"}
    rows = (
        [r.name, " ".join(p.replace("-", "/") for p in r.pairs).replace("*", "all"), r.source] for r in rules.values()
    )
    return f"## KV cache types (K/V)\n\n{_table(['backend', 'pairs', 'source'], rows)}"


def _formats() -> str:
    rows = (
        [r.engine, r.kind, " ".join(r.names), r.min_capability, r.native_capability or "", _amd(r.amd, r.gfx), r.source]
        for r in builds.format_rules()
    )
    head = ["engine", "option", "values", "from capability", "computed natively from", "AMD", "source"]
    return f"## Number formats\n\n{_table(head, rows)}"


def _amd(works: bool, gfx: tuple[str, ...]) -> str:  # noqa: FBT001 - a column of the table
    return (" ".join(gfx) or "yes") if works else "no"


def _cards() -> str:
    head = ["card", "also written", "generation", "code", "MiB", "W", "source"]
    return _table(head, (_card_row(g) for g in gpus.all_gpus()))


def _card_row(gpu: GpuFacts) -> list[str]:
    estimate = "" if gpu.memory_basis == "reported" else "~"
    memory = f"{estimate}{gpu.memory_mib}{' unified' if gpu.unified else ''}"
    doubt = "" if gpu.certain else " (?)"
    code = gpu.capability or gpu.gfx or ""
    return [gpu.name, ", ".join(gpu.aliases), gpu.architecture, code, memory, str(gpu.tdp_w or ""), gpu.source + doubt]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(_line(line) for line in lines)


def _line(cells: list[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |\n"
