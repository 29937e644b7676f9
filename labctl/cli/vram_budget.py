"""``labctl vram-budget``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from labctl.cli.options import HERE, Json, LabPath, Overlays

FILE = "Without a lab (--gguf)"
Explain = Annotated[str | None, typer.Option(metavar="NAME", help="Derive every number of a deployment in words.")]
MaxContext = Annotated[str | None, typer.Option(metavar="NAME", help="The largest context a deployment has room for.")]
Gguf = Annotated[
    str | None, typer.Option(metavar="FILE", help="Estimate this GGUF file (path or URL).", rich_help_panel=FILE)
]
Tokens = Annotated[int, typer.Option(min=1, rich_help_panel=FILE)]
Type = Annotated[str, typer.Option(metavar="TYPE", rich_help_panel=FILE)]
Flag = Annotated[bool, typer.Option(rich_help_panel=FILE)]
Count = Annotated[int, typer.Option(min=0, rich_help_panel=FILE)]
OnOff = Annotated[Literal["on", "off"], typer.Option(rich_help_panel=FILE)]
Shares = Annotated[str, typer.Option(metavar="A,B,…", help="Share of each card.", rich_help_panel=FILE)]
Projector = Annotated[str | None, typer.Option(metavar="FILE", help="GGUF file of a projector.", rich_help_panel=FILE)]


def vram_budget(
    lab: LabPath = HERE,
    overlay: Overlays = [],  # noqa: B006
    json: Json = False,
    explain: Explain = None,
    max_context: MaxContext = None,
    gguf: Gguf = None,
    context: Tokens = 4096,
    slots: Tokens = 1,
    kv_cache_k: Type = "f16",
    kv_cache_v: Type = "f16",
    flash_attention: OnOff = "on",
    batch: Tokens = 2048,
    ubatch: Tokens = 512,
    gpu_layers: Count = 999,
    unified_kv: Flag = False,
    swa_full: Flag = False,
    embeddings: Flag = False,
    cpu_moe_layers: Count = 0,
    gpus: Tokens = 1,
    tensor_split: Shares = "",
    projector: Projector = None,
    build: Type = "b11549",
) -> None:
    """Show who takes how much GPU memory, of what, and what is left."""
    from labctl.cli.budget import show_budget, show_explained, show_file, show_max_context

    if gguf is not None:
        settings: dict[str, Any] = {
            "context": context,
            "slots": slots,
            "kv_cache_k": kv_cache_k,
            "kv_cache_v": kv_cache_v,
            "flash_attention": flash_attention == "on",
            "batch": batch,
            "ubatch": ubatch,
            "gpu_layers": gpu_layers,
            "unified_kv": unified_kv,
            "swa_full": swa_full,
            "embeddings": embeddings,
            "cpu_moe_layers": cpu_moe_layers,
            "devices": gpus,
            "build": build,
        }
        show_file(gguf, settings, tensor_split=tensor_split, projector=projector, json=json)
    elif explain is not None:
        show_explained(lab, tuple(overlay), explain, json=json)
    elif max_context is not None:
        show_max_context(lab, tuple(overlay), max_context, json=json)
    else:
        show_budget(lab, tuple(overlay), json=json)
