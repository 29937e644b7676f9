"""The page of the lines that ``--json`` prints while hosts are worked on."""

from __future__ import annotations

import inspect
import typing
from dataclasses import fields

from labctl.hosts import events
from labctl.plan.model import Action, Kind
from tools.reference.text import document, table

_HEAD = """\
`labctl apply`, `destroy`, `rollback` and `switch` with `--json` print one JSON object per line on standard output, and
nothing else there. Every object has `event`, its name, and `at`, the time (ISO 8601, UTC). The first line is `Plan`,
the last one `Result`; between them comes what happens, as it happens. Later versions may add keys and events: leave out
what you do not know. A command that could not begin (errors in lab.yaml, no confirmation) prints one object with
`diagnostics` instead.

An address is `host:path` of a file, `host/unit` of a unit, `host image reference` of an image. A diagnostic has `code`,
`severity`, `summary`, `detail`, `hint` and its place in lab.yaml.
"""
_RESULT = {
    "ok": "true or false",
    "exit_code": "number; see [exit codes](exit-codes.md)",
    "stale": "addresses at which the plan no longer held",
    "hosts": "host → `ok`, `done`, `failed` (address → diagnostic), `skipped`, `interrupted`, `diagnostics`",
    "summary": "of an apply: `lab`, `endpoint`, `key`, `key_file`, `model`",
    "generation": "of a rollback: its number",
    "group, member": "of a switch",
}


def page() -> str:
    """Return docs/reference/events.md."""
    known = [_entry(kind) for kind in typing.get_args(events.Event)]
    words = table(
        ["type", "values"],
        [[f"`{t.__name__}`", ", ".join(f"`{m.value}`" for m in t)] for t in (events.Phase, Kind, Action)],
    )
    plan = "## Plan\n\nIts key `plan` is what `labctl plan --json` prints."
    result = table(["key", "value"], [[f"`{key}`", text] for key, text in _RESULT.items()])
    end = f"## Result\n\nHow it ended.\n\n{result}"
    return document("Events", _HEAD, plan, *known, end, "## Words", words)


def _entry(kind: type[typing.Any]) -> str:
    text = (inspect.getdoc(kind) or "").replace("``", "`").replace("Attributes:\n", "").strip()
    rows = [[f"`{f.name}`", f"`{_type(str(f.type))}`"] for f in fields(kind)]
    return f"## {kind.__name__}\n\n{_paragraphs(text)}\n\n{table(['key', 'type'], rows)}"


def _paragraphs(text: str) -> str:
    """Return a docstring with its attributes as a list."""
    lines = [f"- {line.strip()}" if line.startswith("    ") else line for line in text.splitlines()]
    return "\n".join(lines)


def _type(text: str) -> str:
    words = {"str": "text", "int": "number", "float": "number", "bool": "true or false", "None": "null"}
    if text.startswith("tuple["):
        return f"list of {_type(text.removeprefix('tuple[').removesuffix(', ...]'))}"
    return " or ".join(words.get(word, word) for word in text.split(" | "))
