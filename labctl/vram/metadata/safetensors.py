"""Safetensors headers and Hugging Face model folders.

Source of the format: safetensors ``README.md`` and ``safetensors/src/tensor.rs`` (0.6): eight bytes of length, that
many bytes of JSON, the data without holes. ``model.safetensors.index.json``: transformers ``utils/hub.py``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from labctl.vram.facts import HfFacts, Tensor
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.window import TRUNCATED, ReadRange, Window

HEADER_LIMIT = 32 * 1024 * 1024
"""Bytes of JSON. The format allows 100 MB; the largest header known (one file, a tensor per expert) has 8 MB."""
MAX_TENSORS = 262_144
MAX_SHARDS = 1024
MAX_NODES = 4 * MAX_TENSORS
"""JSON objects and arrays: three a tensor, with room to spare. Bounds the memory that a hostile header can take."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one value by type name (safetensors ``tensor.rs``, ``Dtype::bitsize``)."""


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes of a safetensors tensor.

    Raises:
        KeyError: its type is none of ``BITS``.
    """
    return -(-math.prod(tensor.shape) * BITS[tensor.type] // 8)


def parse_safetensors(read: ReadRange, size: int | None) -> tuple[Tensor, ...]:
    """Read the header of one safetensors file.

    Args:
        read: the file, see ``ReadRange``.
        size: its length in bytes, when known; a file that ends after its header is accepted as a bare header.

    Returns:
        Its tensors in the order of their data.

    Raises:
        MetadataError: it is no safetensors file, is truncated, or contradicts itself.
    """
    window = Window(read, size, limit=HEADER_LIMIT + 8)
    length = int.from_bytes(window.take(8, "the header's length"), "little")
    if not 2 <= length <= HEADER_LIMIT:
        raise MetadataError(
            summary=f"this is no safetensors file: it claims a header of {length} bytes ({HEADER_LIMIT} at most)"
        )
    header = load_object(window.take(length, "the header"), "the header")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise MetadataError(summary=f"it claims {len(header)} tensors (at most {MAX_TENSORS} are sane)")
    placed = sorted((_tensor(name, entry) for name, entry in header.items()), key=lambda item: item[:2])
    end = _check_extents(placed)
    if size is not None and 8 + length < size < 8 + length + end:
        raise MetadataError(
            summary=f"the data ends at byte {8 + length + end}, but the file has {size}", hint=TRUNCATED
        )
    return tuple(tensor for _, _, tensor in placed)


def parse_index(text: bytes) -> dict[str, tuple[str, ...]]:
    """Read ``model.safetensors.index.json``.

    Returns:
        Shard file → names of the tensors in it; shards in the order of their names.

    Raises:
        MetadataError: it is no such index, or names a file outside its own folder.
    """
    index = load_object(text, "the index")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MetadataError(summary="the index has no `weight_map`")
    shards: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _plain(shard):
            raise MetadataError(summary=f"the index places `{tensor}` in {shard!r}, which is not a file beside it")
        shards.setdefault(shard, []).append(tensor)
    if len(shards) > MAX_SHARDS:
        raise MetadataError(summary=f"the index names {len(shards)} files (at most {MAX_SHARDS} are sane)")
    return {shard: tuple(shards[shard]) for shard in sorted(shards)}


def join_shards(index: Mapping[str, Sequence[str]], shards: Mapping[str, Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Return the tensors of all shards, in the order of ``index``.

    Raises:
        MetadataError: a tensor of the index is in no shard, or in two.
    """
    tensors = tuple(tensor for shard in index for tensor in shards[shard])
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise MetadataError(summary="two shards hold a tensor of the same name")
    missing = next((name for wanted in index.values() for name in wanted if name not in names), None)
    if missing is not None:
        raise MetadataError(summary=f"the index promises the tensor `{missing}`, which no shard holds")
    return tensors


def read_folder(read_file: Callable[[str], bytes | None], read_tensors: Callable[[str], tuple[Tensor, ...]]) -> HfFacts:
    """Read a model folder: ``config.json`` and its safetensors files, by an index or as one file.

    Args:
        read_file: a small file's bytes by name; None when there is no such file.
        read_tensors: a safetensors file's tensors by name.

    Raises:
        MetadataError: no or a broken ``config.json``, index or shard.
    """
    text = read_file("config.json")
    if text is None:
        raise MetadataError(summary="the folder has no `config.json`", hint="point at a Hugging Face model folder")
    config = load_object(text, "`config.json`")
    index_text = read_file(INDEX)
    if index_text is None:
        return HfFacts(config=config, tensors=read_tensors(SINGLE))
    index = parse_index(index_text)
    return HfFacts(config=config, tensors=join_shards(index, {shard: read_tensors(shard) for shard in index}))


def load_object(text: bytes, what: str) -> dict[str, object]:
    """Parse a JSON object without duplicate keys; ``what`` names it in an error.

    Raises:
        MetadataError: it is not valid JSON, no object, nested too deeply, or has a key twice.
    """
    if text.count(b"[") + text.count(b"{") > MAX_NODES or text.count(b",") > 4 * MAX_NODES:
        raise MetadataError(summary=f"{what} has more parts than any model needs")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MetadataError(summary=f"{what} is not valid JSON: {_reason(error)}") from error
    if not isinstance(value, dict):
        raise MetadataError(summary=f"{what} is not a JSON object")
    return value


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        times = Counter(key for key, _ in pairs)
        message = f"the key {times.most_common(1)[0][0]!r} appears twice"
        raise ValueError(message)
    return mapping


def _no_constant(constant: str) -> NoReturn:
    message = f"{constant} is no JSON number"
    raise ValueError(message)


def _plain(name: str) -> bool:
    return bool(name) and not any(character in name for character in "/\\\0?#%") and name not in {".", ".."}


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _tensor(name: str, entry: object) -> tuple[int, int, Tensor]:
    """Return begin, end (bytes from the start of the data) and the tensor."""
    if not isinstance(entry, dict):
        raise MetadataError(summary=f"tensor `{name}` is not described by an object")
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(kind, str) or kind not in BITS:
        raise MetadataError(summary=f"tensor `{name}` has type {kind!r}, which this version of labctl does not know")
    if not isinstance(shape, list) or len(shape) > 16 or not all(_natural(extent) for extent in shape):
        raise MetadataError(summary=f"tensor `{name}` has an impossible shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(offset) for offset in offsets):
        raise MetadataError(summary=f"tensor `{name}` has no valid `data_offsets`")
    tensor = Tensor(name, tuple(shape), kind)
    if offsets[1] - offsets[0] != tensor_bytes(tensor):
        raise MetadataError(
            summary=f"tensor `{name}` needs {tensor_bytes(tensor)} bytes, but has {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1], tensor


def _check_extents(placed: Sequence[tuple[int, int, Tensor]]) -> int:
    """Return the end of the data; raise ``MetadataError`` for a hole or an overlap."""
    end = 0
    for begin, after, tensor in placed:
        if begin != end:
            raise MetadataError(
                summary=f"tensor `{tensor.name}` begins at {begin}, but the one before it ends at {end}"
            )
        end = after
    return end
