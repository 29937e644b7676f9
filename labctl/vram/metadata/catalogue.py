"""The built-in catalogue: facts of common models by the name of a repository or file, so that plans work offline.

Only here does a name decide about anything, and only about facts: a header that was read or locked wins over the
catalogue. The rows are in ``labctl/data/models/*.json``, each with its source; tensors follow from a row by
``layout`` and ``quantise``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import chain

from labctl.values import dataclass
from labctl.vram.facts import GgufFacts, HfFacts, Tensor
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.ggml_types import tensor_bytes
from labctl.vram.metadata.keys import gguf_keys
from labctl.vram.metadata.layout import Extras, architecture_of, tensors
from labctl.vram.metadata.projector import projector_facts, vision_config, vision_tensors
from labctl.vram.metadata.quantise import DEFAULTS, quantise
from labctl.vram.metadata.shape import Config, Shape, integer, read_shape

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gpt-oss", "other", "embedding")
_MIXES = "|".join(sorted((name.replace("_", "[_-]") for name in DEFAULTS), key=len, reverse=True))
_MIX = re.compile(rf"(?<![A-Za-z0-9])({_MIXES}|FP16)(?![A-Za-z0-9])(?:[._-]XL)?", re.IGNORECASE)
_WORD = re.compile(r"\d+(?:\.\d+)?[a-z]*|[a-z]+")
_SIZE = re.compile(r"\d+(?:\.\d+)?b")
_NOISE = re.compile(r"-\d{5}-of-\d{5}|\.gguf|^hf://|@[\w.-]+", re.IGNORECASE)
_IMATRIX = re.compile(r"imat|[._-]i1[._-]|^(?:hf://)?(?:bartowski|unsloth|lewdiculous)/", re.IGNORECASE)
_DEPENDS_ON_IMATRIX = frozenset({"IQ4_XS", "IQ4_NL", "Q4_0", "Q5_0", "IQ3_XXS"})
_HF_QUANTS: Mapping[str, Mapping[str, object]] = {
    "fp8": {"quant_method": "fp8"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "bnb": {"quant_method": "bitsandbytes", "load_in_4bit": True},
}
_HF_QUANT = re.compile(r"(?<![a-z0-9])(fp8|awq|gptq|bnb)(?![a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the catalogue knows of a model.

    Attributes:
        gguf: the header of its GGUF file; None for a source that is none, or whose GGUF layout is not known.
        hf: its ``config.json`` (without tensors); None for a projector.
        exact: the shape was verified and the quantisation is named and follows llama-quantize's own mix.
        source: where the shape was read.
        size_bytes: of its tensors, nearly the size of the file.
    """

    gguf: GgufFacts | None
    hf: HfFacts | None
    exact: bool
    source: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Row:
    """One model of the data files, its ``like`` resolved."""

    id: str
    names: tuple[tuple[str, ...], ...]
    config: Config
    source: str
    sure: bool
    experts: str
    mmproj: str
    gguf: Mapping[str, object]


@cache
def lookup(source: str, *, file: str = "") -> Known | None:
    """Find a model by what a lab calls it.

    Args:
        source: ``hf://org/repo/file.gguf``, ``org/repo``, a path, or an Ollama tag such as ``llama3.1:8b``.
        file: the file inside a repository, when ``source`` does not name it.

    Returns:
        The facts of the most specific matching row, or None. Nothing is raised for odd names.
    """
    name = f"{source}/{file}" if file else source
    row = _match(_words(name))
    if row is None:
        return None
    if "mmproj" in name.lower():
        return _projector(row, name)
    return _gguf(row, name) if _is_gguf(name) else _hf(row, name)


def _is_gguf(name: str) -> bool:
    lowered = name.lower()
    return "gguf" in lowered or _mix(name) != "" or ":" in lowered.replace("://", "") or "/" not in lowered


def _words(name: str) -> tuple[str, ...]:
    """Split into lower-case words and numbers, without the quantisation: ``Llama-3.1-8B`` → llama, 3.1, 8b."""
    plain = _MIX.sub(" ", _NOISE.sub(" ", name)).lower()
    return tuple(_WORD.findall(plain))


def _match(words: Sequence[str]) -> _Row | None:
    """Return the row with the longest name whose words all occur in order, and whose size is not another one.

    A name that says a size (``11b``) that the row's does not is another model: ``Llama-3.2-11B-Vision`` is no
    ``llama-3.2``.
    """
    best: tuple[int, _Row] | None = None
    sizes = {word for word in words if _SIZE.fullmatch(word)}
    for row in _rows().values():
        for wanted in row.names:
            if sizes and sizes.isdisjoint(wanted):
                continue
            if (best is None or len(wanted) > best[0]) and _within(wanted, words):
                best = len(wanted), row
    return best[1] if best else None


def _within(wanted: Sequence[str], words: Sequence[str]) -> bool:
    remaining = iter(words)
    return all(word in remaining for word in wanted)


def _mix(name: str) -> str:
    """Return the quantisation that the last part of a name gives; empty when it gives none."""
    found = [match[1].upper().replace("-", "_") for match in _MIX.finditer(name)]
    return {"FP16": "F16"}.get(found[-1], found[-1]) if found else ""


def _default_mix(row: _Row) -> str:
    """What Ollama and ``llama-server -hf`` take when nothing is said."""
    if row.experts:
        return row.experts
    return "F16" if row.config.get("type_vocab_size") else "Q4_K_M"


def _gguf(row: _Row, name: str) -> Known:
    if not architecture_of(read_shape(row.config).type):
        return _hf(row, name)
    named = _mix(name)
    mix, imatrix = named or _default_mix(row), bool(_IMATRIX.search(name))
    facts = _facts(row.id, mix, imatrix=imatrix)
    custom = "ud-" in name.lower() or (mix in _DEPENDS_ON_IMATRIX and not imatrix)
    return Known(
        gguf=facts,
        hf=HfFacts(config=row.config, tensors=()),
        exact=row.sure and bool(named) and not custom,
        source=row.source,
        size_bytes=tensor_bytes(facts.tensors),
    )


@cache
def _facts(row_id: str, mix: str, *, imatrix: bool) -> GgufFacts:
    """Return a row's header in one quantisation: one object for all its names, so that much is worked out once."""
    row = _rows()[row_id]
    shape = read_shape(row.config)
    architecture = architecture_of(shape.type)
    plain = tensors(architecture, shape, _extras(row.config, architecture, shape))
    typed = quantise(plain, mix, shape, imatrix=imatrix)
    if row.experts and mix not in {"F16", "BF16", "F32"}:
        typed = tuple(_expert(tensor, row.experts) for tensor in typed)
    keys = gguf_keys(architecture, shape, row.config)
    extra = {f"{architecture}.{key}": value for key, value in row.gguf.items() if isinstance(value, int)}
    if shape.type == "xlm-roberta":
        extra[f"{architecture}.context_length"] = shape.context - 2
    if "type_vocab_size" in row.config:
        extra["tokenizer.ggml.token_type_count"] = integer(row.config, "type_vocab_size")
    lengths = {"tokenizer.ggml.tokens": shape.vocab}
    return GgufFacts(metadata={**keys, **extra}, tensors=typed, vocab=shape.vocab, array_lengths=lengths)


def _extras(config: Config, architecture: str, shape: Shape) -> Extras:
    scaling = config.get("rope_scaling")
    kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else ""
    padding = 2 if shape.type == "xlm-roberta" else 0
    return Extras(
        rope_factors=kind in {"llama3", "longrope"},
        token_types=integer(config, "type_vocab_size", default=2),
        positions=shape.context - padding if architecture == "bert" else 0,
    )


def _expert(tensor: Tensor, kind: str) -> Tensor:
    return Tensor(tensor.name, tensor.shape, kind) if "_exps.weight" in tensor.name else tensor


def _projector(row: _Row, name: str) -> Known | None:
    plain = projector_facts(row.mmproj, vision_config(row.config)) if row.mmproj else None
    if plain is None:
        return None
    kind = _mix(name)
    wanted = {"BF16": "BF16", "F32": "F32", "Q8_0": "Q8_0"}.get(kind, "F16")
    typed = tuple(_retyped(tensor, wanted) for tensor in plain.tensors)
    facts = GgufFacts(metadata=plain.metadata, tensors=typed, vocab=0)
    return Known(gguf=facts, hf=None, exact=False, source=row.source, size_bytes=tensor_bytes(typed))


def _retyped(tensor: Tensor, kind: str) -> Tensor:
    fits = tensor.type == "F16" and (kind != "Q8_0" or (len(tensor.shape) == 2 and tensor.shape[0] % 32 == 0))
    return Tensor(tensor.name, tensor.shape, kind) if fits else tensor


def _hf(row: _Row, name: str) -> Known:
    match = _HF_QUANT.search(name.lower())
    quant = _HF_QUANTS[match[1]] if match else None
    config = {**row.config, "quantization_config": quant} if quant else row.config
    return Known(
        gguf=None,
        hf=HfFacts(config=config, tensors=()),
        exact=row.sure and quant is None,
        source=row.source,
        size_bytes=_hf_bytes(row.config) // (4 if quant and quant["quant_method"] != "fp8" else 2 if quant else 1),
    )


def _hf_bytes(config: Config) -> int:
    """Return nearly the bytes of the safetensors files: values in the model's own type, MXFP4 experts at 4.25 bits."""
    try:
        shape = read_shape(config)
        language = tensors(architecture_of(shape.type) or "llama", shape)
    except MetadataError:
        return 0
    width = 32 if config.get("torch_dtype") == "float32" else 16
    quant = config.get("quantization_config")
    small = isinstance(quant, Mapping) and quant.get("quant_method") == "mxfp4"
    bits = (
        math.prod(tensor.shape) * (4.25 if small and "_exps.weight" in tensor.name else width)
        for tensor in chain(language, vision_tensors(vision_config(config)))
    )
    return int(sum(bits)) // 8


@cache
def _rows() -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    folder = files("labctl").joinpath("data", "models")
    for family in FAMILIES:
        data = json.loads(folder.joinpath(f"{family}.json").read_text(encoding="utf-8"))
        for entry in data["models"]:
            rows[entry["id"]] = _row(entry, data["defaults"], rows)
    return rows


def _row(entry: Mapping[str, object], defaults: Config, rows: Mapping[str, _Row]) -> _Row:
    like = rows.get(str(entry.get("like", "")))
    own, extra = entry["config"], entry.get("gguf", {})
    names = entry["names"]
    if not isinstance(own, dict) or not isinstance(names, list) or not isinstance(extra, dict):
        raise MetadataError(summary=f"the row {entry.get('id')!r} of the built-in catalogue is malformed")
    return _Row(
        id=str(entry["id"]),
        names=tuple(tuple(str(name).split()) for name in names),
        config={**(like.config if like else defaults), **own},
        source=str(entry["source"]),
        sure=bool(entry.get("sure", True)),
        experts=str(entry.get("experts", like.experts if like else "")),
        mmproj=str(entry.get("mmproj", "")),
        gguf=extra,
    )
