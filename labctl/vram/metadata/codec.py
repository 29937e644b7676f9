"""Facts as compact JSON values, for ``lab.lock.yaml``: the layers of a model repeat, so they are written once.

A tensor is one string, ``name shape type``. A list of strings is a run of layers: each name holds ``{first..last}``
where the layer's number goes, and a type that changes over the layers is written ``Q6_K*4,Q4_K*2,…``. Decoding gives
back the facts exactly, tensors in file order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from labctl.vram.facts import GgufFacts, HfFacts, Scalar, Tensor, Value
from labctl.vram.metadata.errors import MetadataError

FORMAT = 1
MAX_TENSORS = 262_144
_LAYER = re.compile(r"^((?:[^.{}]*[^.{}\d][^.{}]*\.)+)(\d{1,5})(\.[^{}]*)$")
_RANGE = re.compile(r"\{(\d{1,5})\.\.(\d{1,5})\}")

_Layer = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Per tensor of one layer: the name before and after the number, and the shape."""


def facts_to_json(facts: GgufFacts | HfFacts) -> dict[str, object]:
    """Return the facts as values that JSON and YAML keep exactly, with keys in a fixed order."""
    if isinstance(facts, HfFacts):
        return {"format": FORMAT, "kind": "hf", "config": dict(facts.config), "tensors": pack(facts.tensors)}
    return {
        "format": FORMAT,
        "kind": "gguf",
        "vocab": facts.vocab,
        "metadata": {key: _plain(value) for key, value in facts.metadata.items()},
        "array_lengths": dict(facts.array_lengths),
        "tensors": pack(facts.tensors),
    }


def slim(facts: GgufFacts) -> GgufFacts:
    """Return the facts without what no memory model reads: the tokenizer and texts of more than 256 characters."""
    metadata = {
        key: value
        for key, value in facts.metadata.items()
        if not key.startswith("tokenizer.") and not (isinstance(value, str) and len(value) > 256)
    }
    return replace(facts, metadata=metadata)


def facts_from_json(value: object) -> GgufFacts | HfFacts:
    """Return the facts that ``facts_to_json`` wrote.

    Raises:
        MetadataError: the value is of another format or was damaged.
    """
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        raise MetadataError(summary=f"these are not model facts of format {FORMAT}", hint="run `labctl lock` again")
    try:
        tensors = unpack(value["tensors"])
        if value["kind"] == "hf":
            return HfFacts(config=dict(value["config"]), tensors=tensors)
        return GgufFacts(
            metadata={str(key): _value(entry) for key, entry in value["metadata"].items()},
            tensors=tensors,
            vocab=int(value["vocab"]),
            array_lengths={str(key): int(length) for key, length in value["array_lengths"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MetadataError(
            summary=f"the stored model facts are damaged: {error}", hint="run `labctl lock` again"
        ) from error


def pack(tensors: Sequence[Tensor]) -> list[object]:
    """Return the tensors, runs of alike layers folded; see the module."""
    packed: list[object] = []
    for number, segment in _segments(tensors):
        if number is None:
            packed.extend(_line(tensor.name, tensor.shape, tensor.type) for tensor in segment[0])
        else:
            packed.append(list(_run(number, segment)))
    return packed


def unpack(packed: object) -> tuple[Tensor, ...]:
    """Return the tensors that ``pack`` folded.

    Raises:
        ValueError: it is not of that form.
    """
    if not isinstance(packed, list | tuple):
        message = "the tensors are not a list"
        raise ValueError(message)
    tensors: list[Tensor] = []
    for entry in packed:
        if isinstance(entry, str):
            tensors.append(Tensor(*_fields(entry)))
        else:
            tensors.extend(_unfold([_fields(str(line)) for line in entry]))
        if len(tensors) > MAX_TENSORS:
            message = f"more than {MAX_TENSORS} tensors"
            raise ValueError(message)
    return tuple(tensors)


def _segments(tensors: Sequence[Tensor]) -> Iterator[tuple[int | None, list[tuple[Tensor, ...]]]]:
    """Yield plain stretches as ``(None, [tensors])`` and runs of consecutive alike layers as ``(first, layers)``."""
    run: list[tuple[Tensor, ...]] = []
    first, shape = 0, None
    for number, group in groupby(tensors, _number):
        layer = tuple(group)
        alike = _layer(layer) if number is not None else None
        if run and number == first + len(run) and alike == shape:
            run.append(layer)
            continue
        if run:
            yield first, run
        run = []
        if number is None:
            yield None, [layer]
        else:
            first, shape, run = number, alike, [layer]
    if run:
        yield first, run


def _number(tensor: Tensor) -> int | None:
    match = _LAYER.match(tensor.name)
    return int(match[2]) if match and str(int(match[2])) == match[2] else None


def _layer(layer: tuple[Tensor, ...]) -> _Layer:
    split = [_LAYER.match(tensor.name) for tensor in layer]
    return tuple((m[1], m[3], tensor.shape) for m, tensor in zip(split, layer, strict=True) if m)


def _run(first: int, layers: Sequence[tuple[Tensor, ...]]) -> Iterator[str]:
    span = f"{{{first}..{first + len(layers) - 1}}}"
    for index, (before, after, shape) in enumerate(_layer(layers[0])):
        kinds = groupby(layer[index].type for layer in layers)
        runs = [(kind, len(list(group))) for kind, group in kinds]
        text = runs[0][0] if len(runs) == 1 else ",".join(f"{kind}*{count}" for kind, count in runs)
        yield _line(f"{before}{span}{after}", shape, text)


def _line(name: str, shape: Sequence[int], kind: str) -> str:
    return f"{name} {'x'.join(map(str, shape)) or '-'} {kind}"


def _fields(line: str) -> tuple[str, tuple[int, ...], str]:
    name, shape, kind = line.rsplit(" ", 2)
    return name, () if shape == "-" else tuple(int(extent) for extent in shape.split("x")), kind


def _unfold(lines: Sequence[tuple[str, tuple[int, ...], str]]) -> Iterator[Tensor]:
    ranges = {match.span(): match for name, _, _ in lines if (match := _RANGE.search(name))}
    bounds = {(int(match[1]), int(match[2])) for match in ranges.values()}
    first, last = bounds.pop() if len(bounds) == 1 else (1, 0)
    if not 0 < (last - first + 1) * len(lines) <= MAX_TENSORS:
        message = f"a run of layers needs one sane range: {lines[:1]}"
        raise ValueError(message)
    kinds = [_kinds(kind, last - first + 1) for _, _, kind in lines]
    for layer in range(first, last + 1):
        for (name, shape, _), kind in zip(lines, kinds, strict=True):
            yield Tensor(_RANGE.sub(str(layer), name, count=1), shape, kind[layer - first])


def _kinds(text: str, layers: int) -> list[str]:
    runs = [run.partition("*") for run in text.split(",")]
    counts = [int(count) if star else layers for _, star, count in runs]
    if sum(counts) != layers or min(counts) < 1:
        message = f"{text!r} does not cover {layers} layers"
        raise ValueError(message)
    return [kind for (kind, _, _), count in zip(runs, counts, strict=True) for _ in range(count)]


def _plain(value: Value) -> object:
    """Return the value with tuples as lists and non-finite floats as ``{"float": "nan"}``."""
    if isinstance(value, tuple):
        return [_plain(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _value(value: object) -> Value:
    if isinstance(value, list | tuple):
        return tuple(_scalar(element) for element in value)
    return _scalar(value)


def _scalar(value: object) -> Scalar:
    if isinstance(value, Mapping):
        return float(value["float"])
    if isinstance(value, str | int | float):
        return value
    message = f"{value!r} is no metadata value"
    raise ValueError(message)
