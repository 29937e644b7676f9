"""How llama-server is started, as far as memory is concerned."""

from __future__ import annotations

from labctl.values import dataclass
from labctl.vram.facts import GgufFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of llama-server that change what it allocates.

    Attributes:
        context: total context in tokens over all slots (``-c``).
        slots: sequences served at once (``-np``).
        kv_cache_k: ggml type of the K cache (``-ctk``), e.g. ``f16``, ``q8_0``.
        kv_cache_v: ggml type of the V cache (``-ctv``).
        flash_attention: whether flash attention is used (``-fa``, resolved to on or off).
        batch: logical batch in tokens (``-b``).
        ubatch: physical batch in tokens (``-ub``).
        gpu_layers: layers on the GPUs, the output layer counting as one more (``-ngl``).
        unified_kv: one cache shared by all slots (``-kvu``).
        swa_full: full-size caches for sliding-window layers (``--swa-full``).
        embeddings: the server is used for embeddings (``--embeddings``).
        cpu_moe_layers: the experts of this many first layers stay on the CPU (``--n-cpu-moe``).
        devices: number of GPUs.
        split_mode: ``layer``, ``row`` or ``none`` (``-sm``).
        tensor_split: share of each GPU (``-ts``); empty: by free memory.
        free_memory: free bytes of each GPU, the weights of the default split; empty: equal.
        outputs: tokens per physical batch whose logits are reserved; 0: all; None: what llama-server of this build
            reserves.
        build: llama.cpp build, e.g. ``b11549``.
        kv_offload: keep the caches on the GPUs (``--no-kv-offload`` turns it off).
        op_offload: let GPUs run large operations on host weights (``--no-op-offload`` turns it off).
        backend: ``cuda``, ``rocm``, ``vulkan`` or ``cpu``.
        mmap: map the model file instead of copying the host's part of it.
        projector: header of a multimodal projector (``--mmproj``).
        lora: headers of LoRA adapters (``--lora``).
        draft: header of a draft model (``-md``).
    """

    context: int = 4096
    slots: int = 1
    kv_cache_k: str = "f16"
    kv_cache_v: str = "f16"
    flash_attention: bool = True
    batch: int = 2048
    ubatch: int = 512
    gpu_layers: int = 999
    unified_kv: bool = False
    swa_full: bool = False
    embeddings: bool = False
    cpu_moe_layers: int = 0
    devices: int = 1
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] = ()
    free_memory: tuple[int, ...] = ()
    outputs: int | None = None
    build: str = "b11549"
    kv_offload: bool = True
    op_offload: bool = True
    backend: str = "cuda"
    mmap: bool = True
    projector: GgufFacts | None = None
    lora: tuple[GgufFacts, ...] = ()
    draft: GgufFacts | None = None
