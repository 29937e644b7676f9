"""The ggml tensor types: elements per block and bytes per block.

Source: llama.cpp b11549, ``ggml/src/ggml.c`` (``type_traits``) and ``ggml/src/ggml-common.h`` (the block structs).
"""

from __future__ import annotations

BLOCKS: dict[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "F64": (1, 8),
    "I8": (1, 1),
    "I16": (1, 2),
    "I32": (1, 4),
    "I64": (1, 8),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 36),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ1_S": (256, 50),
    "IQ1_M": (256, 56),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82),
    "IQ3_XXS": (256, 98),
    "IQ3_S": (256, 110),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "Q1_0": (128, 18),
    "Q2_0": (64, 18),
}
"""Type name → (elements per block, bytes per block)."""

ROW_PADDING = 512
"""CUDA pads the last row of a quantised tensor to this many elements (``MATRIX_ROW_PADDING``, ``ggml-cuda``)."""
CUDA_ALIGNMENT = 128
HOST_ALIGNMENT = 32
"""Bytes. ``TENSOR_ALIGNMENT`` of host memory; CUDA's buffer type asks for 128."""


def block(type_name: str) -> tuple[int, int]:
    """Return (elements, bytes) of one block.

    Raises:
        ValueError: for a type this table does not know.
    """
    try:
        return BLOCKS[type_name]
    except KeyError:
        msg = f"unknown ggml tensor type `{type_name}`"
        raise ValueError(msg) from None


def row_bytes(type_name: str, elements: int) -> int:
    """Bytes of a row of ``elements`` elements (``ggml_row_size``)."""
    per, size = block(type_name)
    return elements // per * size


def is_quantized(type_name: str) -> bool:
    """Whether elements share blocks (``ggml_is_quantized``)."""
    return block(type_name)[0] > 1


def row_padding_bytes(type_name: str, row: int) -> int:
    """Bytes CUDA adds to a tensor whose rows have ``row`` elements: quantised rows are padded to ``ROW_PADDING``."""
    per, size = block(type_name)
    if per == 1 or row % ROW_PADDING == 0:
        return 0
    return (ROW_PADDING - row % ROW_PADDING) // per * size


def pad(value: int, multiple: int) -> int:
    """Round ``value`` up to a multiple of ``multiple`` (``GGML_PAD``)."""
    return -(-value // multiple) * multiple
