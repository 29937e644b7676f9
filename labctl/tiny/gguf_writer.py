"""The GGUF container, written with ``struct`` alone: metadata and F32 tensors, nothing else.

Layout: ggml-org/ggml ``docs/gguf.md``, version 3, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from labctl.values import dataclass

_VERSION: Final = 3
_ALIGNMENT: Final = 32
_F32: Final = 0
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9

Scalar = bool | int | float | str
Value = Scalar | Sequence[int] | Sequence[float] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One F32 tensor: ``shape`` in ggml order (contiguous dimension first), ``data`` little-endian."""

    name: str
    shape: tuple[int, ...]
    data: bytes


def constant(name: str, *shape: int, value: float = 0.0) -> Tensor:
    """Return a tensor that holds one value everywhere; ``shape`` in ggml order."""
    count = 1
    for size in shape:
        count *= size
    return Tensor(name, shape, struct.pack("<f", value) * count)


def write(metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> bytes:
    """Return a whole GGUF file. Integers are written as uint32 (in lists: int32), floats as float32."""
    head = [b"GGUF", struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    head += [_text(key) + _typed(value) for key, value in metadata.items()]
    head += _infos(tensors)
    return b"".join(_padded(part) for part in (b"".join(head), *(t.data for t in tensors)))


def _infos(tensors: Iterable[Tensor]) -> Iterable[bytes]:
    offset = 0
    for tensor in tensors:
        rank = len(tensor.shape)
        yield _text(tensor.name) + struct.pack(f"<I{rank}QIQ", rank, *tensor.shape, _F32, offset)
        offset += len(_padded(tensor.data))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _text(value)
        case _:
            return struct.pack("<I", _ARRAY) + _array(value)


def _array(values: Sequence[int] | Sequence[float] | Sequence[str]) -> bytes:
    first = values[0]
    count = len(values)
    if isinstance(first, str):
        return struct.pack("<IQ", _STRING, count) + b"".join(_text(str(v)) for v in values)
    kind, letter = (_FLOAT32, "f") if isinstance(first, float) else (_INT32, "i")
    return struct.pack(f"<IQ{count}{letter}", kind, count, *values)
