"""``python -m tools.reference --check`` or ``--write``: compares the generated pages with the code, or writes them."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from tools.reference.pages import ROOT, pages

COMMAND = "python -m tools.reference --write"


def stale() -> dict[Path, str]:
    """Return the pages whose files are not what the code says: path → the text that it should have."""
    wanted = {ROOT / name: text for name, text in pages().items()}
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text}


def main() -> int:
    """Check or write; exit status 1 when a check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--check", action="store_true", help="show what is out of date")
    chosen.add_argument("--write", action="store_true", help="write what is out of date")
    arguments = parser.parse_args()
    found = stale()
    for path, text in found.items():
        name = path.relative_to(ROOT)
        if arguments.write:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")
        else:
            old = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
            sys.stdout.writelines(difflib.unified_diff(old, text.splitlines(keepends=True), str(name), "generated"))
    if arguments.check and found:
        sys.stdout.write(f"\n{len(found)} pages are out of date: run `{COMMAND}`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
