"""GGUF headers: metadata and tensor list, read through a range reader so that no byte of the weights is fetched.

Source of the format: ggml ``docs/gguf.md`` and ``src/gguf.cpp`` (llama.cpp b11549). Versions 2 and 3, little endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import field

from labctl.values import dataclass
from labctl.vram.facts import GgufFacts, Scalar, Tensor, Value
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.ggml_types import BY_NUMBER, nbytes
from labctl.vram.metadata.window import TRUNCATED, ReadRange, Window

MAGIC = b"GGUF"
KEPT_ELEMENTS = 4096
"""Longer arrays (token lists) are counted, not kept."""
KEPT_STRING = 1024 * 1024
"""Longer strings (embedded tokenizers) are counted, not kept; in bytes."""
MAX_KEYS = 16_384
MAX_TENSORS = 131_072
"""DeepSeek-V3 with one tensor per expert has 47,000."""
MAX_KEPT_TOTAL = 262_144
"""Array elements kept of one file in all."""
MAX_NAME = 4096
"""Bytes of a key or tensor name; ggml itself allows 64 for a tensor."""
MAX_DIMENSIONS = 4

_SCALARS: Mapping[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(slots=True)
class _Header:
    """What has been read so far of one file."""

    window: Window
    metadata: dict[str, Value] = field(default_factory=dict)
    array_lengths: dict[str, int] = field(default_factory=dict)
    kept: int = 0

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.window.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.window.take(8, what))[0])

    def name(self, what: str) -> str:
        length = self.u64(what)
        if length > MAX_NAME:
            raise MetadataError(summary=f"{what} claims to be {length} bytes long (at most {MAX_NAME} are allowed)")
        try:
            return self.window.take(length, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MetadataError(summary=f"{what} is not UTF-8") from error


def parse_gguf(read: ReadRange, size: int | None) -> GgufFacts:
    """Read the header of one GGUF file.

    A file that ends exactly where its tensor data should begin is accepted: headers are handed around on their own.

    Args:
        read: the file, see ``ReadRange``.
        size: its length in bytes, when known; then offsets beyond it are errors.

    Returns:
        The facts of this file alone; ``labctl.vram.metadata.split`` joins the parts of a split model.

    Raises:
        MetadataError: it is no GGUF file, is truncated, or contradicts itself.
    """
    header = _Header(Window(read, size))
    tensor_count, key_count = _preamble(header)
    for index in range(key_count):
        _key(header, index)
    tensors, extents = _tensors(header, tensor_count)
    _check_data(header, extents, size)
    return GgufFacts(
        metadata=header.metadata,
        tensors=tensors,
        vocab=vocabulary(header.metadata, header.array_lengths, tensors),
        array_lengths=header.array_lengths,
    )


def vocabulary(metadata: Mapping[str, Value], lengths: Mapping[str, int], tensors: tuple[Tensor, ...]) -> int:
    """Return the number of tokens: the token list, else ``<arch>.vocab_size``, else the embedding's rows, else 0."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, tuple):
        return len(tokens)
    if "tokenizer.ggml.tokens" in lengths:
        return lengths["tokenizer.ggml.tokens"]
    declared = metadata.get(f"{metadata.get('general.architecture', '')}.vocab_size")
    if isinstance(declared, int) and not isinstance(declared, bool) and declared > 0:
        return declared
    return next((t.shape[1] for t in tensors if t.name == "token_embd.weight" and len(t.shape) == 2), 0)


def _preamble(header: _Header) -> tuple[int, int]:
    """Check magic and version; return the number of tensors and of keys."""
    magic = header.window.take(4, "the magic number")
    if magic != MAGIC:
        raise MetadataError(summary=f"this is not a GGUF file: it begins with {magic!r}", hint=_magic_hint(magic))
    version = header.u32("the version")
    if version in {1, 2 << 24, 3 << 24}:
        kind = "version 1" if version == 1 else "big-endian"
        raise MetadataError(summary=f"this GGUF file is {kind}, which is not supported", hint="convert the model again")
    if version not in {2, 3}:
        raise MetadataError(summary=f"GGUF version {version} is not known (2 and 3 are)")
    tensor_count, key_count = header.u64("the tensor count"), header.u64("the key count")
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise MetadataError(
            summary=f"it claims {tensor_count} tensors and {key_count} keys ({MAX_TENSORS} and {MAX_KEYS} at most)"
        )
    return tensor_count, key_count


def _magic_hint(magic: bytes) -> str:
    if magic in {b"lmgg", b"tjgg", b"fmgg", b"algg"}:
        return "it is from before GGUF (August 2023): convert the model again"
    if magic in {b"vers", b"<!DO", b"<htm"}:
        return "it is a Git LFS pointer or a web page, not the model: download the file itself"
    return "check that the path names a .gguf model file"


def _key(header: _Header, index: int) -> None:
    """Read one key and its value into the header."""
    key = header.name(f"key {index}")
    if key in header.metadata or key in header.array_lengths:
        raise MetadataError(summary=f"the key `{key}` appears twice")
    kind = header.u32(f"the type of `{key}`")
    if kind == _STRING:
        _string(header, key)
    elif kind == _ARRAY:
        _array(header, key)
    elif kind in _SCALARS:
        header.metadata[key] = _scalar(header, kind, key)
    else:
        raise MetadataError(summary=f"`{key}` has value type {kind}, which GGUF does not have")


def _scalar(header: _Header, kind: int, key: str) -> Scalar:
    if kind == 7:
        return header.window.take(1, f"`{key}`") != b"\0"
    layout = _SCALARS[kind]
    value: int | float = layout.unpack(header.window.take(layout.size, f"`{key}`"))[0]
    return value


def _string(header: _Header, key: str) -> None:
    length = header.u64(f"the length of `{key}`")
    if length > KEPT_STRING:
        header.window.skip(length, f"`{key}`")
        header.array_lengths[key] = length
    else:
        header.metadata[key] = header.window.take(length, f"`{key}`").decode("utf-8", "replace")


def _array(header: _Header, key: str) -> None:
    what = f"the array `{key}`"
    kind, count = header.u32(what), header.u64(what)
    if kind != _STRING and kind not in _SCALARS:
        problem = "nested arrays are not supported" if kind == _ARRAY else f"GGUF has no element type {kind}"
        raise MetadataError(summary=f"{what} cannot be read: {problem}")
    if count > KEPT_ELEMENTS:
        _skip_array(header.window, kind, count, what)
        header.array_lengths[key] = count
        return
    header.kept += count
    if header.kept > MAX_KEPT_TOTAL:
        raise MetadataError(summary=f"its arrays hold more than {MAX_KEPT_TOTAL} values, up to {what}")
    header.metadata[key] = tuple(_element(header, kind, key) for _ in range(count))


def _skip_array(window: Window, kind: int, count: int, what: str) -> None:
    if kind == _STRING:
        window.skip_strings(count, what)
    else:
        window.skip(count * _SCALARS[kind].size, what)


def _element(header: _Header, kind: int, key: str) -> Scalar:
    if kind != _STRING:
        return _scalar(header, kind, key)
    length = header.u64(f"a string of `{key}`")
    if length > KEPT_STRING:
        raise MetadataError(
            summary=f"a string of `{key}` claims to be {length} bytes long (at most {KEPT_STRING} are sane)"
        )
    return header.window.take(length, f"a string of `{key}`").decode("utf-8", "replace")


_Extent = tuple[int, int, str]
"""Begin and end, in bytes from the start of the tensor data, and the tensor's name."""


def _tensors(header: _Header, count: int) -> tuple[tuple[Tensor, ...], list[_Extent]]:
    tensors: list[Tensor] = []
    extents: list[_Extent] = []
    for index in range(count):
        tensor, extent = _tensor(header, index)
        tensors.append(tensor)
        extents.append(extent)
    if len({tensor.name for tensor in tensors}) != count:
        raise MetadataError(summary="two tensors have the same name")
    return tuple(tensors), extents


def _tensor(header: _Header, index: int) -> tuple[Tensor, _Extent]:
    name = header.name(f"the name of tensor {index}")
    what = f"tensor `{name}`"
    dimensions = header.u32(what)
    if dimensions > MAX_DIMENSIONS:
        raise MetadataError(summary=f"{what} claims {dimensions} dimensions (at most {MAX_DIMENSIONS} are allowed)")
    shape = tuple(header.u64(what) for _ in range(dimensions))
    number, offset = header.u32(what), header.u64(what)
    kind = BY_NUMBER.get(number)
    if kind is None:
        raise MetadataError(summary=f"{what} has type {number}, which this version of labctl does not know")
    if math.prod(shape) >= 1 << 63:
        raise MetadataError(summary=f"{what} claims an impossible shape: {shape}")
    if shape and shape[0] % kind.block:
        raise MetadataError(
            summary=f"{what} has rows of {shape[0]} values, but {kind.name} stores them by {kind.block}"
        )
    return Tensor(name, shape, kind.name), (offset, offset + nbytes(shape, kind), name)


def _check_data(header: _Header, extents: list[_Extent], size: int | None) -> None:
    """Tensors are aligned, do not overlap, and lie inside the file (or the file is a bare header)."""
    alignment = header.metadata.get("general.alignment", 32)
    if isinstance(alignment, bool) or not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise MetadataError(summary=f"`general.alignment` is {alignment!r}, not a power of two")
    previous: _Extent = (0, 0, "")
    for extent in sorted(extents):
        if extent[0] % alignment:
            raise MetadataError(
                summary=f"tensor `{extent[2]}` begins at {extent[0]}, which is not aligned to {alignment}"
            )
        if extent[0] < previous[1] and extent[1] > extent[0]:
            raise MetadataError(summary=f"tensors `{previous[2]}` and `{extent[2]}` overlap")
        previous = extent
    start = -(-header.window.offset // alignment) * alignment
    end = start + max((extent[1] for extent in extents), default=0)
    if size is not None and start < size < end:
        raise MetadataError(summary=f"the tensor data ends at byte {end}, but the file has {size}", hint=TRUNCATED)
