"""GGUF files with a header and no data, for tools that only read headers.

Source of the layout: ggml's ``docs/gguf.md`` (version 3, little endian).
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

from labctl.vram.facts import GgufFacts, Scalar, Value
from labctl.vram.llama_cpp.quants import block, pad

ALIGNMENT = 32
_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12,
    "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "IQ4_XS": 23, "BF16": 30, "MXFP4": 39,
}  # fmt: skip


def write(path: Path, facts: GgufFacts) -> None:
    """Write ``facts`` as a sparse file whose data section takes no disk space."""
    metadata = {**facts.metadata, "tokenizer.ggml.tokens": tuple(str(i) for i in range(facts.vocab))}
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(facts.tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(value)]
    offset = 0
    for tensor in facts.tensors:
        per, size = block(tensor.type)
        dims = b"".join(struct.pack("<Q", n) for n in tensor.shape)
        place = struct.pack("<IQ", _TYPES[tensor.type], offset)
        parts += [_text(tensor.name), struct.pack("<I", len(tensor.shape)), dims, place]
        offset += pad(prod(tensor.shape) // per * size, ALIGNMENT)
    header = b"".join(parts)
    header += bytes(-len(header) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _scalar(value: Scalar) -> tuple[int, bytes]:
    """GGUF type and bytes of a value: bool, int32, float32 or string."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if value >= 0 else (5, struct.pack("<i", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _text(value)


def _value(value: Value) -> bytes:
    if not isinstance(value, tuple):
        kind, data = _scalar(value)
        return struct.pack("<I", kind) + data
    items = [_scalar(item) for item in value]
    kind = items[0][0] if items else 4
    return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(data for _, data in items)
