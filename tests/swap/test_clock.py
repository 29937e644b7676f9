"""Nothing is decided by the wall clock, which people and NTP set. What runs for ever is begun again."""

from __future__ import annotations

import ast
import asyncio

import pytest

from labctl.swap.app import for_ever
from tests.architecture.source import modules, tree

WALL = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow", "date.today"}
SHOWN = {"swap/records.py": "the list of requests says when each came, and a trace has to"}
"""Modules that may look at the wall clock, with the reason."""
FOUND = sorted(name for name in map(str, modules()) if name.startswith("swap/"))


def test_there_is_something_to_look_at() -> None:
    """The list is not empty, and the exceptions are among it."""
    assert len(FOUND) > 15
    assert SHOWN.keys() <= set(FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_no_module_asks_the_wall_clock(name: str) -> None:
    """Only those that show people a time."""
    asked = {ast.unparse(node) for node in ast.walk(tree(name)) if isinstance(node, ast.Attribute)}
    assert bool(asked & WALL) is (name in SHOWN)


def test_what_a_bug_has_ended_is_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    """And the bug is in the log."""
    begun = []

    async def work() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(for_ever(work), 0.2)

    asyncio.run(run())
    assert len(begun) == 3
    assert caplog.text.count("a bug in the gateway") == 2
