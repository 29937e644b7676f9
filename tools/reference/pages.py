"""All generated pages: file name → text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from labctl import usecases
from tools.reference import axes, cli, codes, events, lab_yaml, readme, services

ROOT = Path(__file__).parents[2]
REFERENCE = "docs/reference"


def pages() -> Mapping[str, str]:
    """Return every page that is made from the code, by its path in the repository."""
    schema = usecases.schema()
    return {
        f"{REFERENCE}/cli.md": cli.page(),
        f"{REFERENCE}/exit-codes.md": cli.exit_codes(),
        f"{REFERENCE}/events.md": events.page(),
        f"{REFERENCE}/lab-yaml.md": lab_yaml.page(schema),
        f"{REFERENCE}/lab.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        f"{REFERENCE}/diagnostics.md": codes.page(),
        f"{REFERENCE}/engines.md": axes.engines_page(schema),
        f"{REFERENCE}/services.md": services.services_page(schema),
        f"{REFERENCE}/targets.md": axes.targets_page(),
        "README.md": readme.page((ROOT / "README.md").read_text("utf-8")),
    }
