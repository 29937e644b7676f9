"""Every command: its name, where it is, and what ``labctl --help`` says about it.

Adding a command is a line here and a module with a function of typer parameters. The module is imported only when its
command runs; nothing here imports anything, so that ``labctl --help`` answers at once.
"""

from __future__ import annotations

SUMMARY = "One lab.yaml for a private inference lab: check it, plan it, run it."

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("labctl.cli.init:init", "Start a lab from a blueprint."),
    "validate": ("labctl.cli.validate:validate", "Find every error in a lab."),
    "vram-budget": (
        "labctl.cli.vram_budget:vram_budget",
        "Show who takes how much GPU memory, of what, and what is left.",
    ),
    "render": ("labctl.cli.render:render", "Write everything a lab renders to, or compare it with a folder."),
    "lock": ("labctl.cli.lock:lock", "Read the models' headers, sizes and digests into lab.lock.yaml."),
    "trust": ("labctl.cli.trust:trust", "Show a host's SSH key, and remember it once you have compared it."),
    "plan": ("labctl.cli.plan:plan", "Show what apply would do, and why."),
    "doctor": ("labctl.cli.doctor:doctor", "Say what each host still needs before the lab can be applied to it."),
    "apply": ("labctl.cli.apply:apply", "Make the hosts what the lab says: show the plan, ask, do it."),
    "status": ("labctl.cli.status:status", "Show what was declared beside what runs."),
    "switch": (
        "labctl.cli.switch:switch",
        "Give another member of an exclusive group its turn.",
    ),
    "rollback": ("labctl.cli.rollback:rollback", "Make a host what it was after an earlier apply."),
    "history": ("labctl.cli.history:history", "Show who applied what to which host, when, and how it ended."),
    "logs": ("labctl.cli.logs:logs", "Show the last log lines of something that runs."),
    "destroy": (
        "labctl.cli.destroy:destroy",
        "Remove what labctl owns on the hosts; data only with --data.",
    ),
    "schema": ("labctl.cli.schema:schema", "Print the JSON Schema of lab.yaml, for editors."),
    "explain": ("labctl.cli.explain:explain", "Explain the code of an error or warning."),
}
"""name → (``module:function``, the first line of the function's docstring), in the order in which help lists them."""
