"""The rows of an apply on a terminal."""

from __future__ import annotations

import io

import pytest

from labctl.diagnostics import Diagnostic
from labctl.hosts.events import (
    ChangeDone,
    ChangeStarted,
    Event,
    HostDone,
    HostFailed,
    HostPhase,
    HostStarted,
    Phase,
    Progress,
    RollbackDone,
    RollbackStarted,
    Waiting,
)
from labctl.plan.model import Action, Kind
from labctl.views.live import LiveProgress, screen

MODEL = "ash:models/m.gguf"


def shown(*events: Event) -> list[str]:
    """Return the rows after these events."""
    view = LiveProgress(io.StringIO())
    with view:
        for event in events:
            view(event)
        return screen(view.rows)


def start(address: str, kind: Kind = Kind.UNIT, action: Action = Action.START) -> ChangeStarted:
    return ChangeStarted(host="ash", address=address, kind=kind, action=action)


def done(address: str) -> ChangeDone:
    return ChangeDone(host="ash", address=address, kind=Kind.UNIT, action=Action.START)


def test_a_row_per_host_with_its_phase() -> None:
    assert shown(
        HostPhase(host="ash", phase=Phase.CONNECTING),
        HostPhase(host="birch-2", phase=Phase.LOCKING, detail="waiting for the lock of ann@desk"),
    ) == ["ash             connecting", "birch-2         waiting for the lock of ann@desk"]


def test_what_goes_on_downloads_and_waiting() -> None:
    rows = shown(
        HostStarted(host="ash", changes=3),
        start(MODEL, Kind.MODEL, Action.CREATE),
        Progress(host="ash", path="models/m.gguf", done=1 << 29, total=1 << 30),
        start("ash/chat"),
        Waiting(host="ash", unit="chat", seconds=12.4, limit=75),
    )
    assert rows == [
        "ash    0/3  models/m.gguf  512 MiB of 1 GiB (50 %)",
        "            chat  waiting until it is healthy, 12 of 75 s",
    ]


def test_many_things_at_once_do_not_fill_the_screen() -> None:
    rows = shown(HostStarted(host="ash", changes=9), *(start(f"ash/u{n}") for n in range(9)))
    assert len(rows) == 5
    assert rows[-1].strip() == "… and 5 more"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (HostDone(host="ash", changes=1), "✓ done"),
        (HostFailed(host="ash", done=0, failed=1, skipped=0), "✗ failed"),
        (HostFailed(host="ash", done=0, failed=0, skipped=1, interrupted=True), "■ stopped"),
        (RollbackDone(host="ash", to="2026", changes=1), "↶ back at what it was"),
        (
            RollbackDone(host="ash", to="2026", changes=0, problems=(Diagnostic(code="LAB1", summary="x"),)),
            "✗ could not",
        ),
    ],
)
def test_how_it_ends(event: Event, words: str) -> None:
    rows = shown(HostStarted(host="ash", changes=1), start("ash/chat"), done("ash/chat"), event)
    assert len(rows) == 1
    assert rows[0].startswith("ash    1/1  " + words)


def test_going_back_is_a_new_beginning() -> None:
    failed = HostFailed(host="ash", done=1, failed=1, skipped=0)
    back = RollbackStarted(host="ash", to="2026", because=("ash/chat",))
    assert shown(HostStarted(host="ash", changes=2), failed, back) == ["ash         going back"]


def test_names_from_hosts_cannot_move_the_cursor() -> None:
    assert "\x1b" not in "".join(shown(HostStarted(host="ash", changes=1), start("ash/\x1b[2Jchat")))
