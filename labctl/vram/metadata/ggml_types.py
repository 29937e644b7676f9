"""ggml's tensor types: number in the file, name, block.

Source of the numbers and block sizes: ggml ``include/ggml.h`` (``enum ggml_type``) and ``src/ggml-common.h`` as of
llama.cpp b11549 (October 2026), which agree with ``gguf`` 0.19 ``constants.py`` (``GGML_QUANT_SIZES``), Q8_1 apart,
which no file holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from labctl.values import dataclass
from labctl.vram.facts import Tensor


@dataclass(frozen=True, slots=True)
class GgmlType:
    """``block`` elements of one row are stored together in ``bytes`` bytes."""

    name: str
    block: int
    bytes: int


def _table(rows: Iterable[tuple[int, str, int, int]]) -> MappingProxyType[int, GgmlType]:
    return MappingProxyType({number: GgmlType(name, block, size) for number, name, block, size in rows})


BY_NUMBER = _table(
    [
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    ]
)
"""Numbers 4, 5, 31–33 and 36–38 were types that ggml has removed."""

BY_NAME = MappingProxyType({kind.name: kind for kind in BY_NUMBER.values()})


def row_bytes(kind: GgmlType, elements: int) -> int:
    """Return the bytes of a row of ``elements`` values; a started block counts as whole."""
    return -(-elements // kind.block) * kind.bytes


def nbytes(shape: Sequence[int], kind: GgmlType) -> int:
    """Return the unpadded bytes of a tensor of ``shape`` (``ne[0]`` first); a shape of ``()`` is one value."""
    return row_bytes(kind, shape[0] if shape else 1) * math.prod(shape[1:])


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the unpadded bytes of GGUF tensors: nearly the size of their file.

    Raises:
        KeyError: a tensor has a type that ggml does not have.
    """
    return sum(nbytes(tensor.shape, BY_NAME[tensor.type]) for tensor in tensors)
