"""Typed access to a model's header: what the graphs need to know, with llama.cpp's defaults.

Source of keys and defaults: llama.cpp b11549, ``src/llama-model.cpp`` (``load_hparams``) and the
``load_arch_hparams`` of each file in ``src/models``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from labctl.vram.facts import GgufFacts, Tensor, Value
from labctl.vram.footprint import Footprint
from labctl.vram.llama_cpp.quants import CUDA_ALIGNMENT, HOST_ALIGNMENT, block, pad, row_padding_bytes
from labctl.vram.llama_cpp.settings import Settings

_RECENT: dict[int, Model] = {}
_KEPT = 64


def model_of(facts: GgufFacts) -> Model:
    """The ``Model`` of a header; the same one for the same object, since much of it is worth computing once."""
    model = _RECENT.get(id(facts))
    if model is None or model.facts is not facts:
        if len(_RECENT) >= _KEPT:
            _RECENT.clear()
        model = _RECENT[id(facts)] = Model(facts)
    return model


@dataclass(frozen=True, eq=False)
class Model:
    """One model file."""

    facts: GgufFacts

    @cached_property
    def estimates(self) -> dict[Settings, Footprint]:
        """What was estimated so far: servers of one model are mostly started alike."""
        return {}

    @cached_property
    def arch(self) -> str:
        """Architecture name.

        Raises:
            ValueError: if the file does not say.
        """
        arch = self.facts.architecture
        if not arch:
            msg = "the file has no `general.architecture`: it is not a llama.cpp model"
            raise ValueError(msg)
        return arch

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Every tensor that llama.cpp loads, with its bytes; appended prediction blocks are skipped."""
        found = (Weight.of(t) for t in self.facts.tensors)
        return tuple(w for w in found if w.block is None or w.block < self.layers)

    @cached_property
    def patterns(self) -> tuple[list[int], list[int]]:
        """For each block, a number that equal blocks share: by names and shapes, and by these and types."""
        plain: list[list[Hashable]] = [[] for _ in range(self.layers)]
        typed: list[list[Hashable]] = [[] for _ in range(self.layers)]
        for weight in self.weights:
            if weight.block is not None:
                plain[weight.block].append((weight.suffix, weight.tensor.shape))
                typed[weight.block].append((weight.suffix, weight.tensor.shape, weight.tensor.type))
        return _numbered(plain), _numbered(typed)

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors by name."""
        return {t.name: t for t in self.facts.tensors}

    def get(self, key: str) -> Value | None:
        """Value of ``<arch>.<key>``."""
        return self.facts.metadata.get(f"{self.arch}.{key}")

    def number(self, key: str, default: int | None = None) -> int:
        """An integer of the architecture; of an array, the largest element.

        Raises:
            ValueError: if it is missing and there is no default.
        """
        value = self.get(key)
        if isinstance(value, tuple):
            value = max((int(v) for v in value), default=default)
        if value is None:
            if default is None:
                msg = f"the model file does not say `{self.arch}.{key}`, without which its memory cannot be computed"
                raise ValueError(msg)
            return default
        return int(value)

    def real(self, key: str) -> float:
        """A float of the architecture, 0.0 when absent."""
        value = self.get(key)
        return float(value) if isinstance(value, int | float) else 0.0

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A boolean of the architecture."""
        value = self.get(key)
        return default if value is None or isinstance(value, tuple) else bool(value)

    def at(self, key: str, il: int, default: int | None = None) -> int:
        """An integer that may differ by layer."""
        value = self.get(key)
        if isinstance(value, tuple):
            return int(value[il]) if il < len(value) else (default or 0)
        return self.number(key, default)

    @cached_property
    def embd(self) -> int:
        """Width of the residual stream in elements."""
        return self.number("embedding_length")

    @cached_property
    def all_layers(self) -> int:
        """Blocks in the file, appended multi-token-prediction blocks included."""
        return self.number("block_count")

    @cached_property
    def layers(self) -> int:
        """Blocks that the main graph runs."""
        return self.all_layers - (self.number("nextn_predict_layers", 0) if self._nextn_counts else 0)

    @property
    def _nextn_counts(self) -> bool:
        return self.number("nextn_predict_layers", 0) < self.all_layers

    def heads(self, il: int) -> int:
        """Query heads of a layer."""
        return self._shapes[il][0]

    def kv_heads(self, il: int) -> int:
        """Key and value heads of a layer."""
        return self._shapes[il][1]

    def head_k(self, il: int) -> int:
        """Elements of a key head."""
        return self._shapes[il][2]

    def head_v(self, il: int) -> int:
        """Elements of a value head."""
        return self._shapes[il][3]

    @cached_property
    def _shapes(self) -> list[tuple[int, int, int, int]]:
        """Query heads, KV heads, key and value head size of each block."""
        found = []
        for il in range(self.all_layers):
            heads = self.at("attention.head_count", il, 0)
            kv = self.at("attention.head_count_kv", il, heads)
            found.append((heads, kv, self._head_size("key", il), self._head_size("value", il)))
        return found

    def _head_size(self, kind: str, il: int) -> int:
        sliding = self.get(f"attention.{kind}_length_swa")
        if sliding is not None and self.swa(il):
            return self.number(f"attention.{kind}_length_swa")
        return self.number(f"attention.{kind}_length", self._head_default)

    @cached_property
    def _head_default(self) -> int:
        heads = self.number("attention.head_count", 0)
        return self.embd // heads if heads else 0

    @cached_property
    def mla(self) -> bool:
        """Whether attention is latent and only a compressed K is cached (``hparams.is_mla``)."""
        return self.number("attention.key_length_mla", 0) > 0 and self.number("attention.value_length_mla", 0) > 0

    @cached_property
    def experts_used(self) -> int:
        """Experts that each token visits."""
        return self.number("expert_used_count", 0)

    @cached_property
    def window(self) -> int:
        """Sliding window in tokens; 0 when no layer slides."""
        if self.arch in _FIXED_WINDOW:
            return self.number("attention.sliding_window", _FIXED_WINDOW[self.arch])
        if self.arch == "llama4":
            return 0 if self.get("attention.sliding_window") == 0 else 8192
        window = self.number("attention.sliding_window", 0)
        return window if self.arch in SLIDING and self._slides(window) else 0

    def _slides(self, window: int) -> bool:
        if self.arch == "exaone4":
            return self.layers == 64 and window > 0
        return window > 0

    def swa(self, il: int) -> bool:
        """Whether a layer attends to a sliding window only."""
        return self._sliding[il]

    @cached_property
    def _sliding(self) -> list[bool]:
        return [self._slides_at(il) for il in range(self.all_layers)]

    def _slides_at(self, il: int) -> bool:
        if not self.window or il >= self.layers or self.recurrent(il):
            return False
        pattern = self.get("attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            return bool(pattern[il]) if il < len(pattern) else False
        period, dense_first = SLIDING.get(self.arch, (1, False))
        if pattern is not None:
            period = int(pattern)
        if period == 0:
            return True
        return il % period != 0 if dense_first else il % period < period - 1

    def recurrent(self, il: int) -> bool:
        """Whether a layer keeps a recurrent state instead of a cache."""
        return self._recurring[il]

    @cached_property
    def _recurring(self) -> list[bool]:
        return [self._recurs(il) for il in range(self.all_layers)]

    def _recurs(self, il: int) -> bool:
        if self.arch in RECURRENT:
            return True
        if self.arch in FULL_EVERY:
            return il < self.layers and f"blk.{il}.attn_k.weight" not in self.tensors
        if self.arch in NO_KV_HEADS_IS_RECURRENT:
            plain = self.at("attention.head_count_kv", il, 1) == 0
            if self.arch in {"nemotron_h", "nemotron_h_moe"}:
                return plain and self.at("feed_forward_length", il, 0) == 0
            return plain
        return False

    @cached_property
    def positions_per_token(self) -> int:
        """Positions per token: four with multimodal rotary positions (``n_pos_per_embd``)."""
        sections = self.get("rope.dimension_sections")
        wide = isinstance(sections, tuple) and len(sections) > 1 and int(sections[0]) > 0 and int(sections[1]) > 0
        return 4 if wide and self.arch in MULTI_POSITION else 1

    @cached_property
    def output_name(self) -> str | None:
        """Tensor that makes the logits; the token embedding when the file has no own one."""
        if "output.weight" in self.tensors:
            return "output.weight"
        if self.arch in NO_LOGITS:
            return None
        return "token_embd.weight" if "token_embd.weight" in self.tensors else None


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of the file: block (None outside the blocks), name within it, bytes on the host and on a GPU."""

    tensor: Tensor
    block: int | None
    suffix: str
    host_bytes: int
    gpu_bytes: int

    @staticmethod
    def of(tensor: Tensor) -> Weight:
        """Split the name and compute the sizes."""
        head, _, rest = tensor.name.partition(".")
        number, _, suffix = rest.partition(".")
        inside = head == "blk" and number.isdigit()
        sizes = (tensor_bytes(tensor, host=host) for host in (True, False))
        return Weight(tensor, int(number) if inside else None, suffix if inside else tensor.name, *sizes)


def tensor_bytes(tensor: Tensor, *, host: bool) -> int:
    """Bytes of a weight in a buffer, alignment and CUDA's row padding included."""
    per, size = block(tensor.type)
    nbytes = prod(tensor.shape) // per * size
    if host:
        return pad(nbytes, HOST_ALIGNMENT)
    return pad(nbytes + row_padding_bytes(tensor.type, tensor.shape[0]), CUDA_ALIGNMENT)


def _numbered(items: list[list[Hashable]]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(tuple(item), len(numbers)) for item in items]


_FIXED_WINDOW = {"gemma2": 4096, "exaone-moe": 128}
"""Windows that hold when the file does not say."""

SLIDING: dict[str, tuple[int, bool]] = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "cohere2moe": (4, True),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma-embedding": (6, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gemma4": (1, False),
    "gpt-oss": (2, False),
    "granite_swa": (1, False),
    "laguna": (4, True),
    "lfm2": (0, False),
    "llama4": (4, False),
    "maple": (1, False),
    "mellum": (4, False),
    "mimo2": (1, False),
    "modern-bert": (3, True),
    "muse-glimmer": (4, False),
    "olmo2": (4, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
    "spark2_5": (1, False),
    "step35": (1, False),
}
"""Architecture → (period, whether the dense layer comes first) when the file has no pattern (``load_swa_pattern``)."""

RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
"""Every layer is recurrent (``llm_arch_is_recurrent``)."""
FULL_EVERY = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"})
"""Layers without a K projection are recurrent (one in every ``full_attention_interval`` has one)."""
NO_KV_HEADS_IS_RECURRENT = frozenset(
    {"jamba", "granitehybrid", "nemotron_h", "nemotron_h_moe", "lfm2", "lfm2moe", "plamo2", "kimi-linear"}
)
"""Layers without KV heads are recurrent."""
ENCODERS = frozenset(
    {
        "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert",
        "gemma-embedding", "llama-embed",
    }
)  # fmt: skip
NO_CACHE = (ENCODERS - {"llama-embed"}) | {"dream", "llada", "llada-moe", "rnd1", "wavtokenizer-dec"}
"""Architectures without any cache (``create_memory``)."""
UNCACHED = NO_CACHE | {"llama-embed"}
"""Architectures whose attention looks at the batch alone."""
NO_LOGITS = ENCODERS
MULTI_POSITION = frozenset(
    {
        "glm4", "glm4moe", "hunyuan_vl", "paddleocr", "qwen2vl", "qwen35", "qwen35moe", "qwen3tts", "qwen3vl",
        "qwen3vlmoe",
    }
)  # fmt: skip
"""Architectures that use multimodal rotary positions when the file has sections for them."""
