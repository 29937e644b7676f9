"""vLLM's KV cache: pages, groups of layers, and how many tokens and sequences a number of bytes holds.

Source: vLLM 0.33 ``v1/kv_cache_interface.py`` (page sizes, blocks per request) and ``v1/core/kv_cache_planning.py``
(``_get_kv_cache_groups_uniform_page_size``): all groups of layers take blocks of one size from one pool.
"""

from __future__ import annotations

from labctl.values import dataclass
from labctl.vram.metadata.shape import FULL, RECURRENT, SLIDING, Config, Shape, text_config
from labctl.vram.vllm.settings import Settings

BLOCK = 16
"""Tokens of a block (``CacheConfig.DEFAULT_BLOCK_SIZE``)."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache of one GPU.

    Attributes:
        block_tokens: tokens of a block; more than 16 where a state-space layer's state needs a larger page.
        block_bytes: bytes of one block of one group.
        groups: per kind of layer the number of groups; each holds blocks of its own for every sequence.
        token_bytes: bytes that one more token of a long sequence takes.
        window: tokens that a sliding layer keeps, the batch in flight included.
    """

    block_tokens: int
    block_bytes: int
    groups: tuple[tuple[str, int], ...]
    token_bytes: int
    window: int

    def sequence_blocks(self, tokens: int) -> int:
        """Blocks that a sequence of ``tokens`` needs in all groups."""
        return sum(count * self._group_blocks(kind, tokens) for kind, count in self.groups)

    def sequence_bytes(self, tokens: int) -> int:
        """Bytes that a sequence of ``tokens`` needs."""
        return self.sequence_blocks(tokens) * self.block_bytes

    def blocks(self, available: int) -> int:
        """Blocks that fit into ``available`` bytes."""
        return max(0, available) // self.block_bytes if self.block_bytes else 0

    def longest(self, available: int, limit: int) -> int:
        """Tokens of the longest single sequence that fits, at most ``limit``, rounded down to whole blocks."""
        low, high = 0, -(-limit // self.block_tokens)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.sequence_bytes(middle * self.block_tokens) <= available
            low, high = (middle, high) if fits else (low, middle - 1)
        return min(limit, low * self.block_tokens)

    def _group_blocks(self, kind: str, tokens: int) -> int:
        if kind == RECURRENT:
            return 1
        if kind == SLIDING and self.window:
            return min(-(-min(tokens, self.window) // self.block_tokens) + 1, -(-tokens // self.block_tokens) + 1)
        return -(-tokens // self.block_tokens)


def value_bytes(settings: Settings, width: int) -> int:
    """Bytes of a cached value: one for fp8 and 8-bit integers, else those of the model."""
    return 1 if settings.kv_cache_dtype.startswith(("fp8", "int8")) else width


def layer_token_bytes(shape: Shape, settings: Settings, width: int) -> int:
    """Bytes that one token takes in one attention layer on one GPU: K and V, or MLA's one compressed vector."""
    value = value_bytes(settings, width)
    if shape.latent:
        return (shape.latent + shape.rope) * value
    heads = max(1, shape.kv_heads // settings.tensor_parallel)
    return heads * (shape.head + shape.value_head) * value


def state_width(config: Config, width: int) -> int:
    """Bytes of a value of a state: the model's, or 4 where its config asks for 32 bits (``mamba_ssm_dtype``)."""
    return 4 if text_config(config).get("mamba_ssm_dtype") == "float32" else width


def state_bytes(shape: Shape, settings: Settings, width: int, state: int) -> int:
    """Bytes of one sequence's state in one recurrent layer on one GPU; ``state``: bytes of one value of it.

    Source: vLLM 0.33 ``model_executor/layers/mamba/mamba_utils.py`` (``MambaStateShapeCalculator``): the convolution's
    tail in the model's type, and the state.
    """
    channels = shape.inner + 2 * shape.groups * shape.state
    if not shape.inner:
        return max(0, shape.conv - 1) * shape.hidden * width // settings.tensor_parallel
    tail = max(0, shape.conv - 1) * channels * width
    return (tail + shape.inner * shape.state * state) // settings.tensor_parallel


def kv_cache(config: Config, shape: Shape, settings: Settings, width: int, batched_tokens: int) -> Cache:
    """Return the cache's geometry on one GPU; one without blocks for models that cache nothing.

    Args:
        config: says how a state is stored.
        shape: of the language model.
        settings: cache type and number of GPUs.
        width: bytes of a value of the model.
        batched_tokens: tokens of one batch, which sliding layers hold beyond their window.
    """
    per_token = layer_token_bytes(shape, settings, width)
    counts = {kind: shape.kinds.count(kind) for kind in (FULL, SLIDING, RECURRENT) if kind in shape.kinds}
    if shape.type in {"bert", "xlm-roberta", "nomic_bert", "roberta"} or not counts:
        return Cache(BLOCK, 0, (), 0, 0)
    block, page = _page(counts, per_token, state_bytes(shape, settings, width, state_width(config, width)))
    size = _group_size(list(counts.values()))
    groups = tuple((kind, -(-count // size)) for kind, count in counts.items())
    return Cache(
        block_tokens=block,
        block_bytes=size * page,
        groups=groups,
        token_bytes=counts.get(FULL, 0) * per_token,
        window=shape.window - 1 + batched_tokens if shape.window else 0,
    )


def _page(counts: dict[str, int], per_token: int, state: int) -> tuple[int, int]:
    """Return tokens and bytes of a block of one layer: a state must fit, so attention's blocks grow to match it."""
    if RECURRENT not in counts:
        return BLOCK, BLOCK * per_token
    if len(counts) == 1:
        return BLOCK, state
    tokens = max(BLOCK, -(-state // (per_token * BLOCK)) * BLOCK)
    return tokens, max(tokens * per_token, state)


def _group_size(counts: list[int]) -> int:
    """Layers of one group: the smallest count, or the largest when it is less than half as much again."""
    return max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
