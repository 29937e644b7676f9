"""Every command: its name, where it is, and what ``labctl --help`` says about it.

Adding a command is a line here and a module with a function of typer parameters. The module is imported only when its
command runs; nothing here imports anything, so that ``labctl --help`` answers at once.
"""

from __future__ import annotations

SUMMARY = "One lab.yaml for a private inference lab: check it, plan it, run it."

COMMANDS: dict[str, tuple[str, str]] = {
    "validate": ("labctl.cli.validate:validate", "Find every error in a lab."),
    "schema": ("labctl.cli.schema:schema", "Print the JSON Schema of lab.yaml, for editors."),
    "explain": ("labctl.cli.explain:explain", "Explain the code of an error or warning."),
}
"""name → (``module:function``, the first line of the function's docstring), in the order in which help lists them."""
