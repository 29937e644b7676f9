"""The last words of an apply: where the lab answers, with which key, and a request to try."""

from __future__ import annotations

import json
import shlex
from typing import Any

from labctl.operate import Summary


def summary_text(summary: Summary, *, changed: bool) -> str:
    """Return the summary for people."""
    lines = [f"{summary.lab}: applied." if changed else f"{summary.lab}: no changes, everything is as the lab says."]
    if summary.endpoint is None:
        return lines[0]
    lines += ["", f"  endpoint  {summary.endpoint}"]
    if summary.key is not None:
        lines.append(f"  key       {summary.key} in {summary.key_file or 'the secrets source'}")
    if summary.model is not None:
        lines += ["  try       " + request(summary).replace("\n", "\n            ")]
    return "\n".join(lines)


def request(summary: Summary) -> str:
    """Return a request for a POSIX shell; the key goes by standard input, so that no process list shows it."""
    body = json.dumps({"model": summary.model, "messages": [{"role": "user", "content": "Who are you?"}]})
    url = f"{summary.endpoint}/chat/completions"
    call = f"curl -s {url} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    if summary.key is None or summary.key_file is None:
        return call
    header = f"sed -n 's/^{summary.key}=/Authorization: Bearer /p' {shlex.quote(str(summary.key_file))}"
    return f"{header} |\n  {call} -H @-"


def summary_value(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain data."""
    return {
        "lab": summary.lab,
        "endpoint": summary.endpoint,
        "key": summary.key,
        "key_file": str(summary.key_file) if summary.key_file else None,
        "model": summary.model,
    }
