"""Rules of polkit, which are JavaScript (polkit(8)): everything that varies in them is written as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from labctl.emit import HEADER

_RULE: Final = """\
// {header}
polkit.addRule(function (action, subject) {{
  var units = {units};
  var verbs = {verbs};
  if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == {user} &&
      units.indexOf(action.lookup("unit")) >= 0 && verbs.indexOf(action.lookup("verb")) >= 0) {{
    return polkit.Result.YES;
  }}
}});
"""


def may_start_and_stop(user: str, units: Sequence[str]) -> str:
    """Return the rule that lets a user start and stop some of systemd's units, and do nothing else to them."""
    return _RULE.format(
        header=HEADER, units=json.dumps(list(units)), verbs=json.dumps(["start", "stop"]), user=json.dumps(user)
    )
