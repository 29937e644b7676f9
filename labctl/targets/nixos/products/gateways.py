"""Gateways: ``services.litellm``, and labctl's own as a service with the system's Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from labctl.diagnostics import Diagnostic, LabctlError
from labctl.emit import nix
from labctl.targets.nixos import program, release, secret
from labctl.targets.nixos.run import Made, Run
from labctl.workload import Native

_PROGRAM: Final = "{config:gateway.py}"
"""What the form of the gateway that brings its own sources starts, with whatever Python."""
_WORKERS: Final = "--num_workers"


def litellm(run: Run) -> Made:
    """Return ``services.litellm``.

    Raises:
        LabctlError: LAB231 when keys are kept in a database: the module has none.
    """
    form, workload = run.native, run.workload
    variables = program.environment(run, form or Native(program=""))
    if "DATABASE_URL" in variables.secret or "DATABASE_URL" in variables.plain:
        raise LabctlError([_no_database(run)])
    port = workload.port()
    config, *modules = workload.files
    environment: dict[str, nix.Value] = {**variables.plain, **_workers(form)}
    if modules:
        environment["PYTHONPATH"] = nix.Text(program.stored(workload))
    value: dict[str, nix.Value] = {
        "enable": True,
        **_package(run, config.value),
        "host": port.bind,
        "port": port.published or port.listen,
        "settings": cast("Mapping[str, nix.Value]", config.value),
        "environment": environment,
        # the module has no default: a missing file stops the service, a missing option stops the evaluation
        "environmentFile": secret.place(run.host, f"{workload.name}.env") if variables.secret else None,
    }
    return Made(
        options={"services": {"litellm": value}},
        unit="litellm.service",
        form=form or workload.forms[0],
        module=True,
        files=tuple(modules),
        secrets=variables.secret,
    )


def _package(run: Run, config: Any) -> dict[str, nix.Value]:
    """Return the package with what the callbacks import, where the release's own lacks it."""
    callbacks = config.get("litellm_settings", {}).get("callbacks") or ()
    wanted = sorted({name for callback in callbacks for name in release.callback_libraries(str(callback))})
    if run.release.litellm_runtime or not wanted:
        return {}
    more = [nix.Ref(f"pkgs.python3Packages.{name}") for name in wanted]
    joined = nix.Call("lib.concatLists", [nix.Ref("old.dependencies"), more])
    package = nix.Call("pkgs.litellm.overridePythonAttrs", nix.Lambda("old", {"dependencies": joined}))
    return {"package": nix.Noted(package, f"for the callbacks {', '.join(map(str, callbacks))}")}


def _workers(form: Native | None) -> dict[str, nix.Value]:
    """Return the number of processes; the module passes no argument for it."""
    args = form.args if form else ()
    number = args[args.index(_WORKERS) + 1] if _WORKERS in args else "1"
    return {} if number == "1" else {"NUM_WORKERS": number}


def _no_database(run: Run) -> Diagnostic:
    return Diagnostic(
        code="LAB231",
        summary=f"`services.litellm` of NixOS keeps no keys in a database, and the gateway on `{run.host.name}` would",
        path=("gateway", "keys"),
        hint="leave `keys.database` out, or put the gateway on a host with `target: compose` or `k3s`",
    )


def builtin(run: Run) -> Made | None:
    """Return labctl's gateway as a service; its sources lie in the store, its libraries come from nixpkgs."""
    form = next((f for f in run.workload.forms if isinstance(f, Native) and _PROGRAM in f.args), None)
    if form is None:
        return None
    packages = [nix.Ref(f"ps.{name}") for name in release.libraries("labctl")]
    python = nix.Call("pkgs.python3.withPackages", nix.Lambda("ps", packages))
    name = program.own_name(run.host, run.workload)
    return program.service(run, form, name=name, program=nix.Text(python, "/bin/python3"))
