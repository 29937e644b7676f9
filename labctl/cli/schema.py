"""``labctl schema``."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of lab.yaml, for editors."""
    from labctl import usecases
    from labctl.cli.report import printer

    printer().data_json(usecases.schema())
