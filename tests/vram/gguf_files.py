"""GGUF bytes for tests, written by hand so that every lie is possible."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from labctl.vram.facts import Tensor
from labctl.vram.metadata.ggml_types import BY_NAME, BY_NUMBER, nbytes
from labctl.vram.metadata.window import ReadRange

NUMBERS = {kind.name: number for number, kind in BY_NUMBER.items()}


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(content: object) -> bytes:
    """A typed value: bool, int (u32), float (f32), str, or a list of one of these."""
    match content:
        case bool():
            return struct.pack("<I?", 7, content)
        case int():
            return (
                struct.pack("<Iq", 11, content) if content < 0 or content >= 1 << 32 else struct.pack("<II", 4, content)
            )
        case float():
            return struct.pack("<If", 6, content)
        case str():
            return struct.pack("<I", 8) + string(content)
        case list() | tuple():
            elements = [value(element) for element in content] or [value(0)]
            kind, count = elements[0][:4], struct.pack("<Q", len(content))
            return struct.pack("<I", 9) + kind + count + b"".join(element[4:] for element in elements[: len(content)])
    raise TypeError(content)


def key(name: str, content: object) -> bytes:
    return string(name) + value(content)


def tensor_info(tensor: Tensor, offset: int) -> bytes:
    shape = struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
    kind = NUMBERS[tensor.type]
    return string(tensor.name) + struct.pack("<I", len(tensor.shape)) + shape + struct.pack("<IQ", kind, offset)


def header(keys: Sequence[bytes], tensors: Sequence[bytes], *, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return magic + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)


def model(metadata: Mapping[str, object], tensors: Iterable[Tensor], *, data: bool = False) -> bytes:
    """A whole header; with ``data`` also as many zero bytes as the tensors need."""
    infos, offset = [], 0
    for tensor in tensors:
        infos.append(tensor_info(tensor, offset))
        offset += -(-nbytes(tensor.shape, BY_NAME[tensor.type]) // 32) * 32
    head = header([key(name, content) for name, content in metadata.items()], infos)
    padding = -len(head) % 32
    return head + bytes(padding + offset) if data else head


def over(content: bytes) -> ReadRange:
    return lambda offset, length: content[offset : offset + length]
