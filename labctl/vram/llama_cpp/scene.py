"""Everything a graph is built from: the model's weights as leafs, the caches, the inputs, and the growing graph.

Source: llama.cpp b11549, ``src/llama-graph.cpp`` (``build_inp_*``), ``src/llama-kv-cache.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.vram.llama_cpp.builds import Rules
from labctl.vram.llama_cpp.cache import Cache
from labctl.vram.llama_cpp.graph import Graph, Node, get_rows, graph_input, leaf, like, padded, set_rows, view
from labctl.vram.llama_cpp.model import Model
from labctl.vram.llama_cpp.placement import Placement
from labctl.vram.llama_cpp.settings import Settings


class MissingTensorError(ValueError):
    """A model file without a tensor that the graph of its architecture needs."""


class Scene:
    """One graph under construction.

    Args:
        placement: where the weights lie.
        cache: sizes of the caches.
        tokens: tokens of the batch.
        outputs: tokens whose logits are computed.
        sequence: the blocks to build, in order (a shortened list stands for the whole model).
    """

    def __init__(self, placement: Placement, cache: Cache, tokens: int, outputs: int, sequence: list[int]) -> None:
        self.placement = placement
        self.cache = cache
        self.model: Model = placement.model
        self.settings: Settings = placement.settings
        self.rules: Rules = cache.rules
        self.tokens = tokens
        self.outputs = outputs
        self.sequence = sequence
        self.graph = Graph()
        self._weights: dict[tuple[str, int], Node] = {}
        self._caches: dict[tuple[str, int], Node] = {}
        self._inputs: dict[str, Node] = {}

    # ── sizes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def slots(self) -> int:
        """Sequences in the batch."""
        return self.settings.slots

    @property
    def flash(self) -> bool:
        """Whether flash attention is on."""
        return self.settings.flash_attention

    @property
    def last(self) -> int:
        """The last block: after its attention only the outputs' rows go on."""
        return self.sequence[-1]

    # ── weights ────────────────────────────────────────────────────────────────────────────────────────────────────

    def has(self, il: int, name: str) -> bool:
        """Whether block ``il`` has weight ``name``."""
        return f"blk.{il}.{name}.weight" in self.model.tensors

    def weight(self, il: int, name: str) -> Node:
        """Weight ``name`` of block ``il``.

        Raises:
            MissingTensorError: if the file has no such tensor.
        """
        node = self.find(il, name)
        if node is None:
            msg = f"the model file has no tensor `blk.{il}.{name}.weight`, which `{self.model.arch}` models need"
            raise MissingTensorError(msg)
        return node

    def find(self, il: int, name: str, suffix: str = ".weight") -> Node | None:
        """Weight or bias ``name`` of block ``il``, or None."""
        return self._leaf(f"blk.{il}.{name}{suffix}", self.placement.block_tensor(il, f"{name}{suffix}"))

    def bias(self, il: int, name: str) -> Node | None:
        """Bias ``name`` of block ``il``, or None."""
        return self.find(il, name, ".bias")

    def top(self, name: str, device: int | None = None) -> Node | None:
        """A tensor outside the blocks, on the output layer's device unless told otherwise."""
        return self._leaf(name, self.placement.output if device is None else device)

    def _leaf(self, name: str, device: int) -> Node | None:
        tensor = self.model.tensors.get(name)
        if tensor is None:
            return None
        node = self._weights.get((name, device))
        if node is None:
            node = leaf(tensor.type, *tensor.shape)
            node.home, node.weight = device, True
            self._weights[name, device] = node
        return node

    def rope_factors(self, il: int) -> Node | None:
        """Frequency factors of rotary positions, if the file has any."""
        device = self.placement.layer(il)
        plain = self.top("rope_freqs.weight", device)
        if plain is not None:
            return plain
        original = self.model.number("rope.scaling.original_context_length", self.model.number("context_length", 0))
        kind = "long" if self.cache.cells > original else "short"
        return self.top(f"rope_factors_{kind}.weight", device)

    # ── caches ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def cached(self, part: str, il: int) -> Node:
        """The cache tensor ``k``, ``v``, ``r`` or ``s`` of block ``il``."""
        node = self._caches.get((part, il))
        if node is None:
            cache = self.cache
            cells, streams = cache.cells_of(il), cache.streams
            if not self.rules.modern:
                node = leaf(*cache.flat(part, il))
            elif part == "k":
                node = leaf(cache.type_k, cache.row_k(il), cells, streams)
            elif part == "v":
                node = leaf(cache.type_v, cache.row_v(il), cells, streams)
            else:
                node = leaf("F32", cache.conv_state if part == "r" else cache.scan_state, self.slots)
            node.home = self.placement.layer(il) if self.settings.kv_offload else self.placement.gpus
            self._caches[part, il] = node
        return node

    # ── inputs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def given(self, name: str, type_name: str, *dims: int) -> Node:
        """The graph input ``name``."""
        node = self._inputs.get(name)
        if node is None:
            node = self._inputs[name] = graph_input(type_name, *dims)
        return node

    def shared(self, name: str, make: Callable[[], Node]) -> Node:
        """A node that all blocks share, made at its first use."""
        node = self._inputs.get(name)
        if node is None:
            node = self._inputs[name] = make()
        return node

    @property
    def positions(self) -> Node:
        """Position of each token (four per token for multimodal rotary positions)."""
        return self.given("positions", "I32", self.tokens * self.model.positions_per_token)

    @property
    def output_rows(self) -> Node:
        """Rows of the tokens whose logits are wanted."""
        return self.given("outputs", "I32", self.outputs)

    def mask(self, *, sliding: bool) -> Node:
        """Attention mask: [cells, tokens of a stream, 1, streams]."""
        cache = self.cache
        cells = cache.window_cells if sliding else cache.cells
        kind = "F16" if self.flash else "F32"
        streams = cache.streams
        return self.given(f"mask {sliding}", kind, cells, self.tokens // streams, 1, streams)

    def square_mask(self, *, sliding: bool = False) -> Node:
        """Attention mask of models without a cache: [tokens, tokens]."""
        return self.given(f"mask {sliding}", "F16" if self.flash else "F32", self.tokens, self.tokens)

    def embedded(self) -> Node:
        """The rows of the token embedding, or given embeddings, or a mixture; scaled as some models want."""
        table = self._leaf("token_embd.weight", self.placement.gpus)
        if table is None:
            msg = "the model file has no tensor `token_embd.weight`"
            raise ValueError(msg)
        width = self.model.embd * (1 + self.model.number("n_deepstack_layers", 0))
        tokens, embeddings = self.given("tokens", "I32", self.tokens), self.given("embd", "F32", width, self.tokens)
        chosen = get_rows(table, tokens)
        if not self.rules.modern:
            return self._scaled(chosen)
        self.graph.expand(chosen)
        if self.rules.mixed_batches and self.model.arch not in UNMIXED:
            mixed = get_rows(table, self.given("mixed tokens", "I32", self.tokens))
            self.graph.expand(mixed)
        else:
            mixed = None
        chosen = self._widened(chosen, width)
        self.graph.expand(chosen)
        self.graph.expand(embeddings)
        if mixed is not None:
            target = like("DUP", self.given("mixed embd", "F32", width, self.tokens))
            slots = self.given("mixed slots", "I64", self.tokens)
            self.graph.expand(set_rows(target, self._widened(mixed, width), slots))
        if width != self.model.embd:
            chosen = view(chosen, (self.model.embd, self.tokens), chosen.nb[1:2])
        return self._scaled(chosen)

    def _widened(self, rows: Node, width: int) -> Node:
        return rows if width == self.model.embd else padded(rows, width - self.model.embd)

    def _scaled(self, rows: Node) -> Node:
        arch = self.model.arch
        if self.model.real("embedding_scale") or arch in ALWAYS_SCALED:
            rows = like("SCALE", rows if rows.contiguous() else like("CONT", rows))
        if arch in SCALED_BY_ROW and self.rules.mixed_batches:
            rows = like("MUL", rows, self.given("scale rows", "F32", 1, self.tokens))
        if self.rules.modern:
            self.graph.expand(rows)
        if arch in SCALED_AFTER or (arch in SCALED_BY_ROW and not self.rules.mixed_batches):
            rows = like("SCALE", rows)
        return rows

    def rotations(self, *, sliding: bool) -> tuple[Node | None, Node | None]:
        """Hadamard rotations of K and V for quantised caches; sliding-window layers have their own."""
        k, v = self.cache.rotations(sliding=sliding)
        return (
            self.given(f"rotation k {sliding}", "F32", k, k) if k else None,
            self.given(f"rotation v {sliding}", "F32", v, v) if v else None,
        )


UNMIXED = frozenset({"cogvlm", "deepseek4", "granite-switch", "eagle3", "dflash", "gemma4-assistant"})
"""Architectures without batches that mix tokens and embeddings (``llm_arch_supports_mixed_batch``)."""
ALWAYS_SCALED = frozenset({"grok", "minicpm"})
"""The embedding has a scale even when the file does not say which."""
SCALED_AFTER = frozenset({"afmoe", "gemma", "gemma2", "minicpm3"})
"""The scale is a node of its own after the embedding."""
SCALED_BY_ROW = frozenset({"gemma3", "gemma3n", "gemma4", "gemma-embedding"})
"""Only rows of tokens are scaled, by an input."""
