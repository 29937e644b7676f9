"""The context's memory: KV caches and recurrent states, their sizes and their tensors in the graph.

Source: llama.cpp b11549, ``src/llama-context.cpp`` (context per sequence), ``src/llama-kv-cache.cpp``,
``src/llama-kv-cache-iswa.cpp`` (cells of sliding-window layers), ``src/llama-memory-recurrent.cpp``,
``src/llama-hparams.cpp`` (``n_embd_r``, ``n_embd_s``, ``n_embd_k_gqa``).
"""

from __future__ import annotations

from functools import cached_property

from labctl.values import dataclass
from labctl.vram.llama_cpp.builds import Rules
from labctl.vram.llama_cpp.model import NO_CACHE, Model
from labctl.vram.llama_cpp.quants import (
    CUDA_ALIGNMENT,
    HOST_ALIGNMENT,
    is_quantized,
    pad,
    row_bytes,
    row_padding_bytes,
)
from labctl.vram.llama_cpp.settings import Settings


@dataclass(frozen=True)
class Cache:
    """Sizes of the caches under given settings."""

    model: Model
    settings: Settings
    rules: Rules

    @cached_property
    def type_k(self) -> str:
        """Ggml type of K."""
        return self.settings.kv_cache_k.upper()

    @cached_property
    def type_v(self) -> str:
        """Ggml type of V."""
        return self.settings.kv_cache_v.upper()

    @cached_property
    def streams(self) -> int:
        """Separate caches: one per sequence, or a single unified one."""
        return 1 if self.settings.unified_kv or not self.rules.modern else self.settings.slots

    @cached_property
    def cells(self) -> int:
        """Tokens that one stream of a full-attention layer holds."""
        if not self.rules.modern:
            return pad(self.settings.context, 256 if self.settings.flash_attention else 32)
        total = pad(self.settings.context, 256)
        return total if self.settings.unified_kv else pad(total // self.settings.slots, 256)

    @cached_property
    def context(self) -> int:
        """Tokens over all streams (``n_ctx`` as llama.cpp prints it)."""
        return self.cells * self.streams

    @cached_property
    def ubatch(self) -> int:
        """Tokens of the largest physical batch."""
        batch = self.settings.batch
        causal = self.model.flag("attention.causal", default=True)
        if causal:
            batch = min(batch, self.settings.context)
        return min(batch, self.settings.ubatch or batch)

    @cached_property
    def batch_tokens(self) -> int:
        """Tokens of the largest physical batch that the context can hold."""
        return min(self.context, self.ubatch)

    @cached_property
    def tokens(self) -> int:
        """Tokens of the worst-case graph: a multiple of the number of sequences."""
        return pad(self.batch_tokens, self.settings.slots) if self.rules.modern else self.batch_tokens

    @cached_property
    def window_cells(self) -> int:
        """Tokens that one stream of a sliding-window layer holds."""
        if self.settings.swa_full or not self.rules.modern:
            return self.cells
        span = self.model.window * (self.settings.slots if self.settings.unified_kv else 1) + self.ubatch
        return pad(min(self.cells, span), 256)

    def cells_of(self, il: int) -> int:
        """Tokens that one stream of layer ``il`` holds."""
        return self.window_cells if self.model.swa(il) else self.cells

    def attends(self, il: int) -> bool:
        """Whether layer ``il`` has a KV cache of its own."""
        model = self.model
        if il >= model.layers or (model.arch in NO_CACHE and self.rules.modern):
            return False
        if model.arch == "falcon-h1":
            return True
        if model.recurrent(il):
            return False
        if model.arch in {"nemotron_h", "nemotron_h_moe"} and model.at("feed_forward_length", il, 0) > 0:
            return False
        return il < self.owning_layers

    @cached_property
    def owning_layers(self) -> int:
        """Layers from here on reuse the cache of an earlier one."""
        if self.model.arch == "gemma3n":
            return 20
        if self.model.arch == "gemma4":
            return self.model.all_layers - self.model.number("attention.shared_kv_layers", 0)
        return self.model.all_layers

    def row_k(self, il: int) -> int:
        """Elements of K per token of layer ``il``."""
        return self.model.head_k(il) * self.model.kv_heads(il)

    def row_v(self, il: int) -> int:
        """Elements of V per token; without flash attention every layer takes as much as the largest."""
        if self.settings.flash_attention or not self.rules.modern:
            return self.model.head_v(il) * self.model.kv_heads(il)
        return self.widest_v

    @cached_property
    def widest_v(self) -> int:
        """Elements of V per token of the widest layer (``n_embd_v_gqa_max``)."""
        return max((self.model.head_v(i) * self.model.kv_heads(i) for i in range(self.model.all_layers)), default=0)

    @cached_property
    def has_v(self) -> bool:
        """Latent attention caches no V."""
        return not self.model.mla or not self.rules.modern

    def rotations(self, *, sliding: bool) -> tuple[int, int]:
        """Widths of the Hadamard rotations that quantised K and V get; 0 without one.

        All layers of a cache must have heads of one size, a multiple of 64.
        """
        return self._rotations[sliding]

    @cached_property
    def _rotations(self) -> dict[bool, tuple[int, int]]:
        return {sliding: self._rotations_of(sliding=sliding) for sliding in (False, True)}

    def _rotations_of(self, *, sliding: bool) -> tuple[int, int]:
        if not self.rules.rotations or (self.model.arch == "lfm2" and self.model.window):
            return 0, 0
        layers = [i for i in range(self.model.layers) if self.attends(i) and self.model.swa(i) == sliding]
        k = _rotation(self.type_k, {self.model.head_k(i) for i in layers}, grow=True)
        v = _rotation(self.type_v, {self.model.head_v(i) for i in layers}, grow=False)
        return k, v if self.has_v else 0

    @cached_property
    def conv_state(self) -> int:
        """f32 elements of the convolution state of one sequence and recurrent layer (``n_embd_r``)."""
        model = self.model
        if model.number("wkv.head_size", 0):
            return model.number("token_shift_count", 2) * model.embd
        if model.number("shortconv.l_cache", 0):
            return model.embd * (model.number("shortconv.l_cache") - 1)
        kernel = model.number("ssm.conv_kernel", 0)
        if model.number("kda.head_dim", 0):
            return 3 * (max(kernel, 1) - 1 or 3) * model.number("attention.head_count") * model.number("kda.head_dim")
        groups = model.number("ssm.group_count", 0)
        return max(kernel - 1, 0) * (model.number("ssm.inner_size", 0) + 2 * groups * model.number("ssm.state_size", 0))

    @cached_property
    def scan_state(self) -> int:
        """f32 elements of the scan state of one sequence and recurrent layer (``n_embd_s``)."""
        model = self.model
        if model.number("wkv.head_size", 0):
            return model.embd * model.number("wkv.head_size")
        if model.number("kda.head_dim", 0):
            return model.number("kda.head_dim") ** 2 * model.number("attention.head_count")
        return model.number("ssm.state_size", 0) * model.number("ssm.inner_size", 0)

    def keeps_state(self, il: int) -> bool:
        """Whether layer ``il`` has a recurrent state."""
        return il < self.model.layers and (self.model.recurrent(il) or self.model.arch == "falcon-h1")

    def flat(self, part: str, il: int) -> tuple[str, int]:
        """Type and elements of a cache tensor of early builds, which is one long row."""
        if self.model.recurrent(il):
            return "F32", (self.conv_state if part in {"k", "r"} else self.scan_state) * self.settings.slots
        width = self.row_k(il) if part == "k" else self.row_v(il)
        return self.type_k if part == "k" else self.type_v, width * self.cells

    def layer_bytes(self, il: int, *, host: bool) -> int:
        """Bytes of the caches of layer ``il`` in a host or GPU buffer."""
        total = 0
        if not self.rules.modern:
            return sum(_tensor(*self.flat(part, il), 1, host=host) for part in ("k", "v"))
        if self.attends(il):
            rows = self.cells_of(il) * self.streams
            total += _tensor(self.type_k, self.row_k(il), rows, host=host)
            if self.has_v:
                total += _tensor(self.type_v, self.row_v(il), rows, host=host)
            if f"blk.{il}.indexer.attn_k.weight" in self.model.tensors:
                indexer = self.model.number("attention.indexer.key_length", 128)
                total += _tensor(self.type_k, indexer, rows, host=host)
        if self.keeps_state(il):
            for elements in (self.conv_state, self.scan_state):
                total += _tensor("F32", elements, self.settings.slots, host=host)
        return total


def _rotation(type_name: str, sizes: set[int], *, grow: bool) -> int:
    if len(sizes) != 1 or not is_quantized(type_name):
        return 0
    size = sizes.pop()
    if size % 64:
        return 0
    width = 64
    while grow and size % (2 * width) == 0:
        width *= 2
    return width


def _tensor(type_name: str, row: int, rows: int, *, host: bool) -> int:
    size = row_bytes(type_name, row) * rows
    if host:
        return pad(size, HOST_ALIGNMENT)
    return pad(size + row_padding_bytes(type_name, row), CUDA_ALIGNMENT)
