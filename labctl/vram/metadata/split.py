"""Split GGUF models: ``name-00001-of-00003.gguf`` and its siblings.

Source: llama.cpp ``tools/gguf-split`` and ``llama_split_path`` (b11549).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from labctl.vram.facts import GgufFacts, Tensor, Value
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.gguf import vocabulary

MAX_PARTS = 1024
_PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.gguf)(?P<rest>\?.*)?$", re.IGNORECASE)


def split_count(facts: GgufFacts) -> int:
    """Return how many files the model is made of: 1 unless ``split.count`` says more.

    Raises:
        MetadataError: the count is absurd.
    """
    count = facts.metadata.get("split.count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_PARTS:
        raise MetadataError(summary=f"`split.count` is {count!r} (at most {MAX_PARTS} parts are sane)")
    return max(count, 1)


def part_names(name: str, count: int) -> tuple[str, ...]:
    """Return the paths or addresses of all ``count`` parts, given that of any one of them.

    Raises:
        MetadataError: the name does not follow llama.cpp's pattern, so the siblings cannot be found.
    """
    match = _PART.match(name)
    if match is None or int(match["count"]) != count:
        raise MetadataError(
            summary=f"the model is split into {count} files, but this name does not say so",
            where=name,
            hint=f"keep the names as published: …-00001-of-{count:05}.gguf",
        )
    stem, end, rest = match["stem"], match["end"], match["rest"] or ""
    return tuple(f"{stem}-{number:05}-of-{count:05}{end}{rest}" for number in range(1, count + 1))


def join_parts(parts: Sequence[GgufFacts]) -> GgufFacts:
    """Return the facts of the whole model: metadata of the first part, tensors of all, in order.

    Raises:
        MetadataError: a part is missing, doubled or belongs to another model.
    """
    if not parts:
        raise MetadataError(summary="a split model needs at least one part")
    for index, part in enumerate(parts):
        number = part.metadata.get("split.no", index)
        if number != index or split_count(part) != len(parts):
            raise MetadataError(
                summary=f"part {index + 1} of {len(parts)} says that it is part {number!r} (counted from 0)"
            )
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    first = parts[0]
    _check_tensors(first.metadata.get("split.tensors.count", len(tensors)), tensors)
    metadata = {key: value for key, value in first.metadata.items() if not key.startswith("split.")}
    return GgufFacts(
        metadata=metadata,
        tensors=tensors,
        vocab=vocabulary(metadata, first.array_lengths, tensors),
        array_lengths=first.array_lengths,
    )


def _check_tensors(promised: Value, tensors: tuple[Tensor, ...]) -> None:
    if promised != len(tensors):
        raise MetadataError(summary=f"the parts hold {len(tensors)} tensors, but `split.tensors.count` is {promised!r}")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise MetadataError(summary="two parts hold a tensor of the same name")
