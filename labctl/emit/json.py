"""Values → JSON."""

from __future__ import annotations

import json

from labctl.emit import EmitError, Value


def dump(value: Value) -> str:
    """Return indented JSON with a final line break; keys stay in declared order. EmitError for NaN and infinity."""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=dict) + "\n"
    except ValueError as error:
        raise EmitError(str(error)) from error
