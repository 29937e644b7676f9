"""Pydantic without plug-ins.

Pydantic looks for plug-ins when the first model is made: it imports ``importlib.metadata`` and reads the metadata of
every installed distribution, a tenth of what ``labctl validate`` costs. labctl has none, and a package that happens to
be installed beside it must not change what a lab may say. ``PYDANTIC_DISABLE_PLUGINS`` saves the search and not the
import, so the module that would search is given here, before the first model asks for it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

_LOADER: Final = "pydantic.plugin._loader"


def leave_out() -> None:
    """Let pydantic find no plug-in; without effect once it has searched."""
    loader = ModuleType(_LOADER, __doc__)
    vars(loader)["get_plugins"] = tuple
    sys.modules.setdefault(_LOADER, loader)
