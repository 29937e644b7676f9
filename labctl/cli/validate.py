"""``labctl validate``."""

from __future__ import annotations

from labctl.cli.options import HERE, Json, LabPath, Overlays


def validate(lab: LabPath = HERE, overlay: Overlays = [], json: Json = False) -> None:  # noqa: B006
    """Find every error in a lab."""
    from labctl import usecases
    from labctl.cli.report import check, printer, show_diagnostics

    found = usecases.validate(lab, tuple(overlay)).diagnostics
    check(found, json=json)
    if json:
        show_diagnostics(found, json=True)
    else:
        printer().say("the lab is valid")
