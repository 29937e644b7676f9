"""What pydantic found, said in plain words: its error list becomes diagnostics with document paths.

A validator of the model may raise any ValueError; its attributes ``code``, ``hint``, ``path`` (inside the validated
value) and ``at`` go into the diagnostic. The types of the model tell which parts of an error's location are keys of
the document and which are labels of union branches; the branches of a union fold into one diagnostic per value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from labctl.diagnostics import At, Diagnostic, DocPath
from labctl.model.base import ADDRESS_PATTERN, NAME_PATTERN
from labctl.model.shapes import Fields, describe_input, example_in, step
from labctl.model.unknown import nearest
from labctl.quantity import QuantityError
from labctl.values import dataclass

_FEW_KEYS: Final = 14
"""Most keys that are listed beside a suggestion."""
_MANY_KEYS: Final = 60
"""Most keys that are listed where there is none."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """One pydantic error whose location has been told apart."""

    path: DocPath
    branches: tuple[tuple[DocPath, str], ...]
    """The unions on the way: where, and which branch."""
    owner: type[BaseModel] | None
    """The model that holds the last key."""
    error: Mapping[str, Any]


def from_pydantic(
    errors: Iterable[Mapping[str, Any]], prefix: DocPath, model: type[BaseModel]
) -> tuple[Diagnostic, ...]:
    """Turn ``ValidationError.errors()`` into diagnostics.

    Args:
        errors: as pydantic lists them.
        prefix: the document path of the value that was validated.
        model: the model that it was validated against.

    Returns:
        One diagnostic per fault, in pydantic's order, with paths that ``Document.locate`` understands.
    """
    findings = _fold([_trace(error, model) for error in errors])
    misspelt = {path for finding in findings for path in _meant(finding)}
    return tuple(_diagnose(f, prefix) for f in findings if f.error["type"] != "missing" or f.path not in misspelt)


def _meant(finding: _Finding) -> Iterator[DocPath]:
    """Yield the path that an unknown key was probably meant to be: its absence is not a second fault."""
    if finding.error["type"] == "extra_forbidden":
        close = nearest(str(finding.path[-1]), Fields.of(finding.owner).keys)
        if close:
            yield (*finding.path[:-1], close)


def _trace(error: Mapping[str, Any], model: type[BaseModel]) -> _Finding:
    path: list[str | int] = []
    branches: list[tuple[DocPath, str]] = []
    kind: Any = model
    owner: type[BaseModel] | None = model
    for part in error["loc"]:
        kind, owner, label = step(kind, part)
        if label:
            branches.append((tuple(path), str(part)))
        elif part != "[key]":
            path.append(part)
    return _Finding(tuple(path), tuple(branches), owner, error)


def _fold(findings: Sequence[_Finding]) -> list[_Finding]:
    """Keep of each union the errors of the branch that was meant."""
    unions: dict[DocPath, dict[str, list[_Finding]]] = {}
    for finding in findings:
        for place, branch in finding.branches[:1]:
            unions.setdefault(place, {}).setdefault(branch, []).append(finding)
    chosen = {place: _choose(place, found) for place, found in unions.items()}
    kept: list[_Finding] = []
    done: set[DocPath] = set()
    for finding in findings:
        if not finding.branches:
            kept.append(finding)
            continue
        place = finding.branches[0][0]
        if place not in done:
            done.add(place)
            kept += chosen[place]
    return kept


def _choose(place: DocPath, branches: Mapping[str, list[_Finding]]) -> list[_Finding]:
    """Return the errors of the branch whose shape the value has; one error naming all shapes when none has it."""
    fitting = {label: found for label, found in branches.items() if not any(_is_shape(f, place) for f in found)}
    if fitting:
        best = min(fitting.values(), key=lambda found: (-_depth(found), len(found)))
        return _fold([_Finding(f.path, f.branches[1:], f.owner, f.error) for f in best])
    literals = [f for found in branches.values() for f in found if f.error["type"] in _CHOICES]
    if literals and isinstance(literals[0].error["input"], str):
        return [literals[0]]
    every = [f for found in branches.values() for f in found if _is_shape(f, place)]
    wanted = list(dict.fromkeys(word for f in every for word in _wants(f.error)))
    first = every[0]
    return [_Finding(place, (), first.owner, {**first.error, "type": "shape", "wanted": _either(wanted)})]


def _is_shape(finding: _Finding, place: DocPath) -> bool:
    """Whether this error says that the value is of another kind than the branch reads."""
    if finding.path != place:
        return False
    error = finding.error
    if error["type"] in _CHOICES:
        return not isinstance(error["input"], str)
    if isinstance(_cause(error), QuantityError):
        return not _is_plain(error["input"])
    return error["type"] in _SHAPES


def _is_plain(value: object) -> bool:
    """Whether a value could be meant as a quantity or a word: text or a number."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _depth(findings: Sequence[_Finding]) -> int:
    return max(len(f.path) for f in findings)


def _cause(error: Mapping[str, Any]) -> Exception | None:
    cause = error.get("ctx", {}).get("error")
    return cause if isinstance(cause, Exception) else None


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _diagnose(finding: _Finding, prefix: DocPath) -> Diagnostic:
    kind = finding.error["type"]
    explain = _EXPLANATIONS.get(kind, _other)
    if kind in _SHAPES:
        explain = _wrong_type
    return explain(finding, (*prefix, *finding.path))


def _name(path: DocPath) -> str:
    """Say what a path is about: the last key, with its index when it is in a list."""
    if not path:
        return "the lab"
    if isinstance(path[-1], int):
        return f"entry {path[-1] + 1} of {_name(path[:-1])}"
    return f"`{path[-1]}`"


def _missing(finding: _Finding, path: DocPath) -> Diagnostic:
    key, parent = path[-1], path[:-1]
    field = Fields.of(finding.owner).find(str(key))
    example = field.example if field else ""
    hint = f"add `{key}: {example or '…'}`"
    if field and field.description:
        hint += f" ({field.description})"
    where = f" in {_name(parent)}" if parent else ""
    return Diagnostic(code="LAB020", summary=f"`{key}` is missing{where}", path=parent, at=At.KEY, hint=hint)


def _unknown_key(finding: _Finding, path: DocPath) -> Diagnostic:
    key = str(path[-1])
    known = Fields.of(finding.owner).keys
    where = f" in {_name(path[:-1])}" if path[:-1] else ""
    label, hint = suggest(key, known, "known keys")
    before, colon, value = key.partition(":")
    if colon and before in known:
        label, hint = "", f"write `{before}: {value}`, with a space behind the colon"
    return Diagnostic(
        code="LAB021", summary=f"unknown key `{key}`{where}", path=path, at=At.KEY, label=label, hint=hint
    )


def suggest(word: str, known: Iterable[str], what: str) -> tuple[str, str]:
    """Return a label with the nearest known word, and a hint that lists the known ones when they are few."""
    names = list(known)
    close = nearest(word, names)
    label = f"did you mean `{close}`?" if close else ""
    listed = ", ".join(f"`{name}`" for name in names)
    few = _FEW_KEYS if close else _MANY_KEYS
    return label, f"{what} are {listed}" if names and len(names) <= few else ""


def _wrong_type(finding: _Finding, path: DocPath) -> Diagnostic:
    error = finding.error
    value = error["input"]
    wanted = error.get("wanted") or _either(_wants(error))
    summary = f"{_name(path)} must be {wanted}, not {describe_input(value)}"
    return Diagnostic(code="LAB022", summary=summary, path=path, hint=_type_hint(wanted, value, path))


def _type_hint(wanted: str, value: object, path: DocPath) -> str:
    if "true or false" in wanted and isinstance(value, str) and value.lower() in _TRUTH:
        return f"write `{_TRUTH[value.lower()]}`: YAML 1.2 reads `{value}` as text"
    if "number" in wanted and isinstance(value, str):
        bare = value.replace("_", "").replace(",", "")
        digits = bare.lstrip("-").isdigit()
        return f"write `{bare}` without quotes or separators" if digits else "write digits, for example `4096`"
    if "text" in wanted and isinstance(value, int | float):
        return f'put it in quotes: `"{str(value).lower()}"`'
    if wanted == "a list" and isinstance(value, str | int):
        return f"write `[{value}]`"
    if value is None and path:
        return "write a value behind the colon, or delete the key"
    return _collection_hint(wanted, value)


def _collection_hint(wanted: str, value: object) -> str:
    if wanted == "a mapping" and isinstance(value, list | tuple):
        return "write `name: …` for each entry, without the `-`"
    example = wanted.partition("such as ")[2] or (wanted.partition(",")[0] if wanted.startswith("`") else "")
    return f"write for example {example}" if example else ""


def _wants(error: Mapping[str, Any]) -> list[str]:
    """Return the kinds of value, or the words, that an error asks for."""
    cause = _cause(error)
    if isinstance(cause, QuantityError):
        example = example_in(str(cause))
        return [f"a quantity such as {example}" if example else "a quantity"]
    if error["type"] in _CHOICES:
        return [f"`{choice}`" for choice in _choices(error)]
    return [_SHAPES.get(error["type"], "something else")]


def _bad_value(finding: _Finding, path: DocPath) -> Diagnostic:
    cause = _cause(finding.error)
    value = finding.error["input"]
    if isinstance(cause, QuantityError) and not _is_plain(value):
        return _wrong_type(finding, path)
    quantity = isinstance(cause, QuantityError)
    return Diagnostic(
        code=getattr(cause, "code", "LAB023" if quantity else "LAB026"),
        summary=_sentence(str(cause) if cause else str(finding.error["msg"]), path, quantity=quantity),
        path=(*path, *getattr(cause, "path", ())),
        at=getattr(cause, "at", At.VALUE),
        hint=_quantity_hint(str(cause)) if quantity else getattr(cause, "hint", ""),
    )


def _sentence(message: str, path: DocPath, *, quantity: bool) -> str:
    return f"{_name(path)}: {message.partition('; ')[0]}" if quantity else message


def _quantity_hint(message: str) -> str:
    return message.partition("; ")[2]


def _choices(error: Mapping[str, Any]) -> list[str]:
    context = error.get("ctx", {})
    expected = str(context.get("expected", context.get("expected_tags", "")))
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",") if part.strip()]


def _not_a_choice(finding: _Finding, path: DocPath) -> Diagnostic:
    value = finding.error["input"]
    label, hint = suggest(str(value), _choices(finding.error), "choices")
    return Diagnostic(
        code="LAB024", summary=f"{_name(path)} cannot be {_shown(value)}", path=path, label=label, hint=hint
    )


def _shown(value: object) -> str:
    return f"`{value}`" if _is_plain(value) else describe_input(value)


def _out_of_range(finding: _Finding, path: DocPath) -> Diagnostic:
    error = finding.error
    limit, remedy = (words.format(**error["ctx"]) for words in _LIMITS[error["type"]])
    summary = f"{_name(path)} is {_shown(error['input'])}; it must {limit}"
    return Diagnostic(code="LAB025", summary=summary, path=path, hint=remedy)


def _pattern(finding: _Finding, path: DocPath) -> Diagnostic:
    from_key = "[key]" in finding.error["loc"]
    words = _PATTERNS.get(finding.error["ctx"]["pattern"], "")
    summary = f"`{finding.error['input']}` is not a valid {'name' if from_key else 'value'}"
    if not from_key:
        summary += f" for {_name(path)}"
    hint = words or f"it must match `{finding.error['ctx']['pattern']}`"
    return Diagnostic(code="LAB026", summary=summary, path=path, at=At.KEY if from_key else At.VALUE, hint=hint)


def _other(finding: _Finding, path: DocPath) -> Diagnostic:
    """Cover error types that no field of labctl uses today, without pydantic's capital letter."""
    message = str(finding.error["msg"])
    return Diagnostic(code="LAB026", summary=f"{_name(path)}: {message[:1].lower()}{message[1:]}", path=path)


_TRUTH: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_CHOICES: Final = frozenset({"literal_error", "enum", "union_tag_invalid"})
_SHAPES: Final[Mapping[str, str]] = {
    "shape": "",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "iterable_type": "a list",
    "string_type": "text",
    "path_type": "text",
    "url_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "nothing",
}
"""pydantic's error type → the kind of value that it wants."""

_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("be more than {gt}", "write more than {gt}"),
    "greater_than_equal": ("be at least {ge}", "write {ge} or more"),
    "less_than": ("be less than {lt}", "write less than {lt}"),
    "less_than_equal": ("be at most {le}", "write {le} or less"),
    "multiple_of": ("be a multiple of {multiple_of}", "round it to a multiple of {multiple_of}"),
    "too_short": ("have {min_length} or more entries", "add what is missing"),
    "too_long": ("have {max_length} or fewer entries", "remove entries"),
    "string_too_short": ("have at least {min_length} characters", "write a longer text, or leave the key out"),
    "string_too_long": ("have at most {max_length} characters", "write a shorter text"),
}
"""pydantic's error type → what the value must, and the remedy."""

_PATTERNS: Final[Mapping[str, str]] = {
    ADDRESS_PATTERN: "write a host name or an IP address alone; user and port of SSH go into `ssh: {user: …, port: …}`",
    NAME_PATTERN: "names have lower-case letters, digits and inner hyphens, 63 characters at most, e.g. `chat-2`",
    r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$": "it starts with a letter or digit and has letters, digits and `._:/@+-`",
    r"^[A-Z_][A-Z0-9_]*$": "names of secrets have capital letters, digits and underscores, e.g. `HF_TOKEN`",
    r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$": "write a host name in lower case, without `*` and `http://`: `lab.example`",
    r"^https://": "write its address as k3s has it: `https://HOST:6443`",
    r"^(GPU|MIG)-[0-9a-fA-F-]+$": "write the card's index, or its UUID as `nvidia-smi -L` shows it: `GPU-…`",
}

_EXPLANATIONS: Final[Mapping[str, Callable[[_Finding, DocPath], Diagnostic]]] = {
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "value_error": _bad_value,
    "assertion_error": _bad_value,
    "literal_error": _not_a_choice,
    "enum": _not_a_choice,
    "union_tag_invalid": _not_a_choice,
    "string_pattern_mismatch": _pattern,
    **dict.fromkeys(_LIMITS, _out_of_range),
}
