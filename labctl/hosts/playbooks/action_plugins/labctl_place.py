"""The part of ``labctl_place`` that runs here: hands the host its bundle together with the module, in one go.

``ansible.builtin.copy`` would take seven commands over SSH for what this takes one for. Nothing in the bundle is ever
looked at by Ansible's templates: it is read as bytes after all of them have been filled in.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase  # type: ignore[import-untyped]


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Reads the bundle and runs the module on the host."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the module answers."""
        super().run(tmp, task_vars)
        bundle = base64.b64encode(Path(self._task.args["bundle"]).read_bytes()).decode()
        arguments = {"staging": self._task.args["staging"], "bundle": bundle}
        answer: dict[str, Any] = self._execute_module(
            module_name="labctl_place", module_args=arguments, task_vars=task_vars
        )
        return answer
