"""A program as a systemd service of its own: what NixOS has no module for, or only one instance of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from labctl.emit import nix
from labctl.placed import PlacedHost
from labctl.targets import gpus, shared
from labctl.targets.nixos import secret
from labctl.targets.nixos.run import Made, Options, Run
from labctl.targets.nixos.values import given
from labctl.targets.systemd_unit import HARDENING, WITHOUT_CARDS
from labctl.workload import Native, Start, Workload

SHELL: Final = "/bin/sh"
"""The one program that every NixOS machine has at its usual place."""
_ACCOUNT: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
"""What systemd takes for the name of a dynamic user (systemd.io/USER_NAMES); UT_NAMESIZE limits its length."""


def service(run: Run, form: Native, *, name: str, package: nix.Value = None, program: nix.Value = None) -> Made:
    """Return a service that runs a program with the workload's own arguments.

    Args:
        run: the workload.
        form: its native form.
        name: the unit, without ``.service``.
        package: what brings the program, put on PATH; None when nothing has to.
        program: what is started, where it is not ``form.program`` itself.
    """
    variables = environment(run, form)
    words: list[nix.Value] = [program or form.program, *(argument(run, form, name, text) for text in form.args)]
    wants = ["network-online.target"]
    unit: dict[str, nix.Value] = {
        # labctl's own description may name a version, and packages of nixpkgs have theirs
        "description": (run.workload.description if package is program is None else "")
        or f"{run.workload.name} of lab {run.host.lab}",
        "wantedBy": ["multi-user.target"] if run.workload.start is not Start.ON_DEMAND else None,
        "wants": wants,
        "after": wants,
        "environment": {"HOME": f"/var/cache/{name}", **variables.plain} if _dynamic(run, form) else variables.plain,
        "path": [package] if package is not None else None,
        "serviceConfig": _config(run, form, name, variables.secret, words),
    }
    options: Options = {"systemd": {"services": {name: given(unit)}}, **_users(run, form)}
    return Made(
        options=options,
        unit=f"{name}.service",
        form=form,
        restarts=True,
        files=(*run.workload.files, *form.files),
        secrets=variables.secret,
        credentials=form.credentials,
    )


def environment(run: Run, form: Native) -> shared.Environment:
    """Return the variables of a program of the host, those of its cards among them."""
    claim = run.workload.gpu
    return shared.Environment.of(run.workload, form, gpus.native(run.host, claim) if claim else {})


def own_name(host: PlacedHost, workload: Workload) -> str:
    """Return the name of a workload's own unit: the lab's name keeps it apart from those of the system."""
    return f"{host.lab}-{workload.name}"


def account(unit: str) -> str:
    """Return the dynamic user of a unit: called like it, as systemd does by itself, or nearly so where it cannot be."""
    if _ACCOUNT.fullmatch(unit):
        return unit
    return f"lab-{unit[:17].rstrip('-')}-{hashlib.sha256(unit.encode()).hexdigest()[:8]}"


def argument(run: Run, form: Native, unit: str, text: str) -> nix.Value:
    """Return an argument with the places of files and credentials in it."""
    text = shared.with_credentials(text, form, lambda name: f"/run/credentials/{unit}.service/{name}")
    for file in (*run.workload.files, *form.files):
        before, found, after = text.partition(f"{{config:{file.name}}}")
        if found:
            return nix.Text(before, stored(run.workload), f"/{file.name}{after}")
    return text


def stored(workload: Workload) -> nix.PathRef:
    """Return the folder with a workload's files; Nix copies it into the store. There is no secret in it."""
    return nix.PathRef(f"./files/{workload.name}")


def devices(workload: Workload) -> Mapping[str, nix.Value]:
    """Return the groups that own the device files of cards."""
    return {"SupplementaryGroups": ["video", "render"]} if workload.gpu else {}


def loaded(host: PlacedHost, workload: Workload, credentials: Sequence[str]) -> list[nix.Value]:
    """Return the values of ``LoadCredential``."""
    return [_credential(host, workload, name) for name in sorted(credentials)]


def _credential(host: PlacedHost, workload: Workload, name: str) -> nix.Value:
    place = secret.place(host, credential_name(workload, name))
    return nix.Text(f"{name}:", place) if isinstance(place, nix.Ref) else f"{name}:{place}"


def credential_name(workload: Workload, name: str) -> str:
    """Return the name of the file with a workload's credential."""
    return f"{workload.name}.{name}"


def _config(
    run: Run, form: Native, name: str, variables: Mapping[str, object], words: list[nix.Value]
) -> dict[str, nix.Value]:
    once = run.workload.start is Start.ONCE
    found: dict[str, nix.Value] = {
        "Type": "oneshot" if once else "exec",
        "RemainAfterExit": True if once else None,
        "ExecStart": nix.Call("utils.escapeSystemdExecArgs", words),
        "Restart": None if once else "always" if run.workload.start is Start.ALWAYS else "on-failure",
        "RestartSec": None if once else 10,
        "EnvironmentFile": secret.place(run.host, f"{run.workload.name}.env") if variables else None,
        "LoadCredential": loaded(run.host, run.workload, list(form.credentials)),
        **_identity(run, form, name),
        **devices(run.workload),
        **hardening(run.workload, root=_user(run, form) == "root"),
    }
    return given(found)


def hardening(workload: Workload, *, root: bool) -> dict[str, nix.Value]:
    """Return what a service may not do: the same as on a host with target ``systemd``."""
    pairs = [*HARDENING, *([] if workload.gpu else WITHOUT_CARDS)]
    found: dict[str, nix.Value] = {key: {"yes": True}.get(value, value) for key, value in pairs}
    found["RestrictAddressFamilies"] = str(found["RestrictAddressFamilies"]).split()
    return found if root else found | {"CapabilityBoundingSet": ""}


def _user(run: Run, form: Native) -> str | None:
    return form.user or run.host.user


def _users(run: Run, form: Native) -> dict[str, nix.Value]:
    """Return the user that a service is to run as, where it is nobody who logs in, or who is there anyway."""
    user = _user(run, form)
    if user is None or user in {"root", run.host.login.user}:
        return {}
    return {"users": {"users": {user: {"isSystemUser": True, "group": user}}, "groups": {user: {}}}}


def _dynamic(run: Run, form: Native) -> bool:
    return _user(run, form) is None


def _identity(run: Run, form: Native, name: str) -> dict[str, nix.Value]:
    if not _dynamic(run, form):
        return {"User": _user(run, form)}
    user = account(name)
    found: dict[str, nix.Value] = {"DynamicUser": True, "User": None if user == name else user}
    return {**found, "CacheDirectory": name, "WorkingDirectory": f"/var/cache/{name}"}
