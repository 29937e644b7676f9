"""Comparing one path: what is wanted, what labctl left there, what is there now."""

from __future__ import annotations

from labctl.artefact import Artefact, File, ModelFile, SecretFile
from labctl.plan.digests import shape, wanted
from labctl.plan.model import Action, Change, Kind, Reason, State
from labctl.plan.observed import Entry, EntryKind, FileType, SecretDigests, SeenFile, SeenHost

Verdict = tuple[Action, Reason]

_SAME: Verdict = (Action.NOOP, Reason.IN_PLACE)


def compare_path(artefact: Artefact, host: SeenHost, secrets: SecretDigests | None) -> Change:
    """Return the change of one wanted path."""
    entry, seen = host.manifest.entries.get(artefact.path), host.files.get(artefact.path)
    action, reason = _verdict(artefact, entry, seen, secrets)
    return Change(
        host=artefact.host,
        kind=kind_of(artefact),
        name=artefact.path,
        action=action,
        reason=reason,
        before=_before(seen),
        after=_after(artefact, secrets, text=action.changes),
        origin=artefact.origin,
    )


def compare_leftover(host: SeenHost, path: str, entry: Entry, *, data: bool) -> Change:
    """Return the change of a path that labctl owns and the lab no longer wants. Models are data: kept unless asked."""
    seen = host.files.get(path)
    if seen is None:
        verdict = (Action.DELETE, Reason.MISSING)
    elif entry.kind is EntryKind.MODEL and not data:
        verdict = (Action.NOOP, Reason.KEPT)
    else:
        verdict = (Action.DELETE, Reason.NO_LONGER_WANTED)
    return Change(
        host=host.host, kind=Kind(entry.kind), name=path, action=verdict[0], reason=verdict[1], before=_before(seen)
    )


def kind_of(artefact: Artefact) -> Kind:
    """Return the kind of change that an artefact gives."""
    match artefact:
        case File():
            return Kind.FILE
        case SecretFile():
            return Kind.SECRET
        case ModelFile():
            return Kind.MODEL


def _verdict(artefact: Artefact, entry: Entry | None, seen: SeenFile | None, secrets: SecretDigests | None) -> Verdict:
    if seen is None:
        return Action.CREATE, _absent(artefact, entry)
    if seen.type is not FileType.FILE:
        return Action.UPDATE, Reason.FOREIGN
    if isinstance(artefact, ModelFile):
        return _model(artefact, entry, seen)
    reason = _content(artefact, entry, seen, secrets)
    if reason is not None:
        return Action.UPDATE, reason
    if seen.mode != artefact.mode:
        drifted = entry is not None and entry.mode == artefact.mode and entry.confirmed
        return Action.UPDATE, Reason.MODE_DRIFTED if drifted else Reason.MODE_CHANGED
    return _SAME


def _absent(artefact: Artefact, entry: Entry | None) -> Reason:
    if entry is None:
        return Reason.NEW
    if not entry.confirmed:
        return Reason.INTERRUPTED
    return Reason.MODEL_MISSING if isinstance(artefact, ModelFile) else Reason.MISSING


def _content(
    artefact: File | SecretFile, entry: Entry | None, seen: SeenFile, secrets: SecretDigests | None
) -> Reason | None:
    goal = wanted(artefact, secrets)
    if goal is not None and seen.digest == goal:
        return None
    if entry is None:
        return Reason.FOREIGN
    if entry.kind.value != kind_of(artefact).value:
        return Reason.CONTENT_CHANGED
    if seen.digest not in {entry.digest, *entry.previous}:
        return Reason.DRIFTED
    return Reason.INTERRUPTED if entry.digest == goal else _intent(artefact, entry, goal)


def _intent(artefact: File | SecretFile, entry: Entry, goal: str | None) -> Reason | None:
    """Return what the lab changed about a path that nobody else touched."""
    if isinstance(artefact, SecretFile) and entry.shape == shape(artefact):
        return Reason.SECRET_ROTATED if goal is not None else None
    return Reason.CONTENT_CHANGED


def _model(artefact: ModelFile, entry: Entry | None, seen: SeenFile) -> Verdict:
    if artefact.sha256 is not None:
        if seen.digest == artefact.sha256:
            return _SAME
        moved_on = entry is not None and entry.confirmed and entry.digest == seen.digest
        return Action.UPDATE, Reason.SOURCE_CHANGED if moved_on else Reason.MODEL_CORRUPT
    if entry is not None and entry.shape != artefact.url:
        return Action.UPDATE, Reason.SOURCE_CHANGED
    sizes = {size for size in (artefact.size, entry.size if entry else None) if size is not None}
    return _SAME if not sizes or seen.size in sizes else (Action.UPDATE, Reason.MODEL_CORRUPT)


def _before(seen: SeenFile | None) -> State | None:
    if seen is None:
        return None
    return State(digest=seen.digest, mode=seen.mode, text=seen.text, size=seen.size)


def _after(artefact: Artefact, secrets: SecretDigests | None, *, text: bool) -> State:
    match artefact:
        case File():
            shown = _text(artefact.content) if text else None
            return State(digest=artefact.digest, mode=artefact.mode, text=shown, size=len(artefact.content))
        case SecretFile():
            return State(digest=wanted(artefact, secrets), mode=artefact.mode)
        case ModelFile():
            return State(digest=artefact.sha256, size=artefact.size)


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
