"""What an API server says, in words: which right is missing, whose field it is, what is wrong in a manifest.

The facts behind it were taken from a real server (1.36): server-side apply answers an unknown field or a wrong type
with 500 and no reason, a broken rule with 422 and its causes, somebody else's field with 409 and the manager's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labctl.artefact import Object
from labctl.diagnostics import Diagnostic, DocPath, Severity
from labctl.kube.api import Api, ApiError, Unreachable
from labctl.kube.kinds import brought_by

CONFLICT: Final = "LAB176"
"""Code of a conflict with another manager: the one refusal that can be overridden."""
_FORBIDDEN: Final = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_CONFLICT: Final = re.compile(r'conflict with "(?P<manager>[^"]*)"')
_IMMUTABLE: Final = re.compile(
    r"field is immutable|updates to .* are forbidden|is immutable after creation|may not be changed"
)


def immutable(error: ApiError) -> bool:
    """Whether an object was refused only because it cannot be changed in place."""
    told = [str(c.get("message") or "") for c in error.causes] or [error.message]
    return error.code == 422 and all(_IMMUTABLE.search(text) for text in told)


def conflicts(error: ApiError) -> tuple[tuple[str, str], ...]:
    """Return (manager, field) of everything that other managers own, of a 409."""
    found = []
    for cause in error.causes:
        named = _CONFLICT.search(str(cause.get("message") or ""))
        found.append((named["manager"] if named else "somebody", str(cause.get("field") or "")))
    return tuple(dict.fromkeys(found))


def of_object(error: ApiError, name: str, item: Object | None = None) -> Diagnostic:
    """Return why the server did not take one object."""
    path = item.origin if item is not None and item.origin else None
    found: Diagnostic | None = None
    match error.code:
        case 409 if error.reason == "Conflict" and error.causes:
            found = conflict(error, name, path)
        case 403 if not _FORBIDDEN.search(error.message):
            found = _refused("LAB201", f"`{name}` is refused by the cluster's rules", error.message, path, _RULES)
        case 404:
            found = _missing(error, name, path)
        case 422:
            hint = _IN_PLACE if immutable(error) else "correct it in lab.yaml, or in the deployment's `extra:`"
            found = _refused("LAB175", f"`{name}` is not valid", _causes(error), path, hint)
        case 400 | 500 if not error.transient:
            found = _refused("LAB174", f"the server does not understand `{name}`", error.message, path, _FIELD)
    return of_server(error, path) if found is None else found


_RULES: Final = "a quota, a policy or an admission plug-in forbids it: ask whoever looks after the cluster"
_IN_PLACE: Final = "it cannot be changed in place: delete it by hand (`kubectl delete`) if that may be, and apply again"
_FIELD: Final = (
    "a field is unknown or has the wrong type: look at `extra:` of what it was made from; trying again is no use"
)


def conflict(error: ApiError, name: str, path: DocPath | None = None) -> Diagnostic:
    """Return who owns what labctl would change."""
    found = conflicts(error)
    managers = sorted({manager for manager, _ in found})
    who = ", ".join(f"`{m}`" for m in managers)
    return Diagnostic(
        code=CONFLICT,
        summary=f"`{name}` has fields that {who} set to something else",
        detail="\n".join(f"{field} ({manager})" for manager, field in found),
        path=path,
        hint="if labctl is to have them, apply with `--force-conflicts`; else take them out of the lab",
    )


def of_server(error: ApiError | Unreachable, path: DocPath | None = None, api: Api | None = None) -> Diagnostic:
    """Return why the server does not answer, or does not let one in."""
    where = f" at {api.where}" if api is not None else ""
    if isinstance(error, Unreachable):
        return _unreachable(error, where)
    if error.code == 401:
        return Diagnostic(
            code="LAB172",
            summary=f"the API server{where} does not know who is asking (401)",
            detail=error.message,
            path=path,
            hint="the login in the kubeconfig has expired or belongs to another cluster: fetch a new one",
        )
    named = _FORBIDDEN.search(error.message)
    if error.code == 403 and named:
        return _right(named.groupdict(), path)
    return Diagnostic(
        code="LAB202",
        summary=f"the API server{where} could not do it: {error.code} {error.reason}".rstrip(),
        detail=error.message,
        path=path,
        hint="wait a moment and run the same command again; the server's own log says more",
    )


def _unreachable(error: Unreachable, where: str) -> Diagnostic:
    if error.tls:
        return Diagnostic(
            code="LAB172",
            summary=f"the API server{where} is not who it should be, or does not accept the certificate",
            detail=error.why,
            hint="compare the kubeconfig's certificate authority, address and client certificate with the server's",
        )
    return Diagnostic(
        code="LAB171",
        summary=f"the API server{where} does not answer: {error.why}",
        hint="is the machine up, is k3s running (`systemctl status k3s`), does a firewall or VPN stand between?",
    )


def _right(named: Mapping[str, Any], path: DocPath | None) -> Diagnostic:
    resource = named["resource"] + (f".{named['group']}" if named["group"] else "")
    where = f" in namespace `{named['namespace']}`" if named["namespace"] else ""
    option = f" -n {named['namespace']}" if named["namespace"] else ""
    return Diagnostic(
        code="LAB173",
        summary=f"`{named['user']}` may not {named['verb']} {resource}{where}",
        path=path,
        hint="give it that right: docs/kubernetes.md has the role; "
        f"`kubectl auth can-i {named['verb']} {resource}{option}` tells",
    )


def no_kind(item: Object, name: str) -> Diagnostic:
    """Return that the server does not have an object's kind."""
    version = str(item.value["apiVersion"])
    brings = brought_by(version)
    hint = f"{brings} brings it" if brings else "install the chart or the custom resource definition that brings it"
    return Diagnostic(
        code="LAB177",
        summary=f"the cluster has no `{item.value['kind']}` of `{version}`, which `{name}` is",
        path=item.origin or None,
        hint=hint,
    )


def _missing(error: ApiError, name: str, path: DocPath | None) -> Diagnostic:
    if 'namespaces "' in error.message:
        return _refused("LAB179", f"`{name}` has no namespace to be in", error.message, path, _NAMESPACE)
    return _refused("LAB179", f"`{name}` needs something that is not there", error.message, path, "apply again")


_NAMESPACE: Final = "create the namespace, or let labctl: its Namespace object has to be part of the lab"


def unchecked(host: str, names: Sequence[str], why: str) -> Diagnostic:
    """Return that objects could not be tried on the server."""
    return Diagnostic(
        code="LAB203",
        severity=Severity.NOTE,
        summary=f"`{host}`: {len(names)} objects were not tried on the API server: {why}",
        hint="labctl checked them by its own means; apply tries all of them on the server before anything is changed",
    )


def _refused(code: str, summary: str, detail: str, path: DocPath | None, hint: str) -> Diagnostic:
    return Diagnostic(code=code, summary=summary, detail=detail, path=path, hint=hint)


def _causes(error: ApiError) -> str:
    return "\n".join(f"{c.get('field')}: {c.get('message')}" for c in error.causes) or error.message
