"""What the scheduler must know of a backend: which operations it can run, and how large a tensor is in its buffers.

Source: llama.cpp b11549, ``ggml/src/ggml-cuda/ggml-cuda.cu`` (``ggml_backend_cuda_device_supports_op``,
``…_offload_op``, ``…_get_alloc_size``), ``ggml/src/ggml-cuda/fattn.cu`` (``ggml_cuda_get_best_fattn_kernel`` on a GPU
with Turing or later tensor cores), ``ggml/src/ggml-backend.cpp`` (host buffers).
"""

from __future__ import annotations

from collections.abc import Callable

from labctl.values import dataclass
from labctl.vram.llama_cpp.builds import Rules
from labctl.vram.llama_cpp.graph import Node
from labctl.vram.llama_cpp.quants import (
    CUDA_ALIGNMENT,
    HOST_ALIGNMENT,
    block,
    is_quantized,
    pad,
    row_padding_bytes,
)

_FLASH_EQUAL = frozenset({40, 64, 72, 80, 96, 112, 128, 256})
"""Head sizes with a flash-attention kernel whenever K and V have the same size."""
_FLASH_KV_TYPES = frozenset({"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})
_NO_MATRIX = frozenset({"TQ1_0", "TQ2_0", "I8", "I16", "I32", "I64", "F64", "Q8_1"})


@dataclass(frozen=True, slots=True)
class Machine:
    """The backends of one process: GPUs ``0 … gpus-1`` in order of priority, then the CPU."""

    gpus: int
    rules: Rules
    op_offload: bool = True

    @property
    def cpu(self) -> int:
        """Index of the CPU backend."""
        return self.gpus

    def reads(self, backend: int, buffer: int) -> bool:
        """Whether ``backend`` can use tensors in the buffers of ``buffer`` directly."""
        return backend == buffer

    def runs(self, backend: int, node: Node) -> bool:
        """Whether ``backend`` can run the operation."""
        if backend == self.gpus:
            return True
        for source in node.sources:
            home = source.home
            if home is not None and home not in {backend, self.gpus}:
                return False
        check = _CHECKS.get(node.op)
        return check is None or check(node)

    def wants(self, node: Node) -> bool:
        """Whether a GPU would rather copy host weights than leave the operation to the CPU."""
        return _batch(node) >= self.rules.offload_min_batch

    def size(self, node: Node, backend: int) -> int:
        """Bytes of a node in the compute buffer of a backend, aligned."""
        if backend == self.gpus:
            return pad(node.bytes(), HOST_ALIGNMENT)
        size = node.bytes()
        if node.op == "FLASH_ATTN_EXT" and self.rules.flash_scratch_in_graph:
            size = _with_f16_copies(node, size)
        return pad(size + row_padding_bytes(node.type, node.ne[0]), CUDA_ALIGNMENT)


def _batch(node: Node) -> int:
    if node.op == "GET_ROWS":
        return 0
    if node.op == "MUL_MAT":
        return node.ne[1]
    if node.op in {"MUL_MAT_ID", "ROPE"}:
        return node.ne[2]
    return node.rows


def _with_f16_copies(node: Node, size: int) -> int:
    """The matrix kernels read f16 K and V: other types are converted behind the result."""
    q, k, v = node.sources[:3]
    if q.ne[1] == 1 and q.ne[0] <= 256 and q.ne[0] % 64 == 0 and is_quantized(k.type) and is_quantized(v.type):
        return size  # the vector kernel reads them as they are
    if k.type != "F16":
        size = pad(size, CUDA_ALIGNMENT) + 2 * k.elements
    same = v.view is not None and (v.view is k or v.view is k.view)
    if v.type != "F16" and not same:
        size = pad(size, CUDA_ALIGNMENT) + 2 * v.elements
    return size


def flash_runs(node: Node) -> bool:
    """Whether CUDA has a flash-attention kernel for these head sizes and types."""
    q, k, v = node.sources[:3]
    mask = node.sources[3] if len(node.sources) > 3 else None
    ratio = q.ne[2] // k.ne[2]
    grouped = ratio >= 2 and mask is not None and node.variant != "alibi" and k.ne[1] % 256 == 0
    size, other = k.ne[0], v.ne[0]
    if k.type not in _FLASH_KV_TYPES or v.type not in _FLASH_KV_TYPES:
        return False
    if size in _FLASH_EQUAL:
        return size == other
    wide = {192: (128, 8), 320: (256, 32), 512: (512, 1), 576: (512, 1)}.get(size)
    return wide is not None and other == wide[0] and grouped and ratio % wide[1] == 0


def _mul_mat(node: Node) -> bool:
    a, b = node.sources[:2]
    if a.nb[0] != block(a.type)[1] or b.nb[0] != block(b.type)[1]:
        return False
    if b.type == "F16" and a.type != "F16" and node.variant != "hadamard":
        return False
    return a.type not in _NO_MATRIX


def _get_rows(node: Node) -> bool:
    a = node.sources[0]
    if a.type in {"IQ4_NL", "MXFP4"}:
        return a.ne[0] % 256 == 0
    return a.type not in {"NVFP4", "TQ1_0", "TQ2_0", "IQ1_M"}


def _concat(node: Node) -> bool:
    a, b = node.sources[:2]
    return a.type == b.type == node.type


def _ssm_scan(node: Node) -> bool:
    state, a, b = node.sources[0], node.sources[3], node.sources[4]
    if a.ne[0] == 1:
        return state.ne[0] in {96, 128, 256} and state.ne[1] % 16 == 0
    return state.ne[0] == 16 and state.ne[1] == 1 and state.ne[2] % 128 == 0 and b.ne[1] == 1


def _arithmetic(node: Node) -> bool:
    types = {node.type, node.sources[0].type, node.sources[1].type}
    return types <= {"F32", "F16"} or (node.type == node.sources[0].type == "BF16")


_CHECKS: dict[str, Callable[[Node], bool]] = {
    "MUL_MAT": _mul_mat,
    "MUL_MAT_ID": _mul_mat,
    "GET_ROWS": _get_rows,
    "FLASH_ATTN_EXT": flash_runs,
    "CONCAT": _concat,
    "SSM_SCAN": _ssm_scan,
    "SSM_CONV": lambda node: node.sources[0].ne[1] % 128 == 0,
    "ADD": _arithmetic,
    "SUB": _arithmetic,
    "MUL": _arithmetic,
    "DIV": _arithmetic,
    "REPEAT": lambda node: node.sources[0].type in {"F32", "F16"},
    "ROPE": lambda node: node.sources[0].nb[0] <= 4,
}
"""Operation → whether CUDA runs this one; operations not listed always run."""
