"""Every operation, where it is, and whether it changes something."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from labctl.agent.call import Call, Reply

Function = Callable[[Call], Reply]


class Operation:
    """One operation: a function of a module of this package.

    Attributes:
        changes: whether it may change something on the host. Calls of the others may be repeated.
    """

    def __init__(self, module: str, function: str, *, changes: bool) -> None:
        self.module, self.function, self.changes = module, function, changes

    def load(self) -> Function:
        """Return the function; its module is imported when it is first needed."""
        name = f"labctl.agent.{self.module}"
        __import__(name)
        function: Function = getattr(sys.modules[name], self.function)
        return function


OPERATIONS: Mapping[str, Operation] = {
    "read": Operation("files", "read", changes=False),
    "look": Operation("files", "look", changes=False),
    "free": Operation("files", "free", changes=False),
    "write": Operation("files", "write", changes=True),
    "append": Operation("files", "append", changes=True),
    "remove": Operation("files", "remove", changes=True),
    "make_folders": Operation("files", "make_folders", changes=True),
    "remove_empty": Operation("files", "remove_empty", changes=True),
    "swap": Operation("files", "swap", changes=True),
    "run": Operation("programs", "run", changes=True),
    "stream": Operation("programs", "stream", changes=False),
    "alive": Operation("processes", "alive", changes=False),
    "whoami": Operation("processes", "whoami", changes=False),
    "probe": Operation("web", "probe", changes=False),
    "facts": Operation("facts", "facts", changes=False),
    "fetch": Operation("fetch", "fetch", changes=True),
    "pull": Operation("images", "pull", changes=True),
    "build": Operation("images", "build", changes=True),
}
