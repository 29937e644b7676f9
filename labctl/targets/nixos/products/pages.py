"""Pages: ``services.open-webui`` and ``services.searx``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from labctl.emit import nix
from labctl.targets import shared
from labctl.targets.nixos import release, secret
from labctl.targets.nixos.run import Made, Run
from labctl.targets.nixos.values import given, override


def open_webui(run: Run) -> Made:
    """Return ``services.open-webui``. Its environment holds strings only, as labctl writes them anyway."""
    workload = run.workload
    variables = shared.Environment.of(workload, workload.forms[0], {})
    port = workload.port()
    value: dict[str, nix.Value] = {
        "enable": True,
        "package": _with_postgresql() if "DATABASE_URL" in {*variables.plain, *variables.secret} else None,
        "host": port.bind,
        "port": port.published or port.listen,
        "environment": {name: text for name, text in variables.plain.items() if name != "PORT"},
        "environmentFile": secret.place(run.host, f"{workload.name}.env") if variables.secret else None,
    }
    return Made(
        options={"services": {"open-webui": given(value)}},
        unit="open-webui.service",
        form=workload.forms[0],
        module=True,
        secrets=variables.secret,
        unfree=release.unfree("open-webui"),
    )


def _with_postgresql() -> nix.Noted:
    """Return Open WebUI with its database's driver, an extra of the package (0.6.40: text index 28899644)."""
    joined = nix.Call("lib.concatLists", [nix.Ref("old.dependencies"), nix.Ref("old.optional-dependencies.postgres")])
    package = nix.Call("pkgs.open-webui.overridePythonAttrs", nix.Lambda("old", {"dependencies": joined}))
    return nix.Noted(package, "for its database")


def searxng(run: Run) -> Made:
    """Return ``services.searx`` with SearXNG, which takes its key from the environment (``SEARXNG_SECRET``)."""
    workload = run.workload
    variables = shared.Environment.of(workload, workload.forms[0], {})
    port = workload.port()
    declared = cast("Mapping[str, nix.Value]", workload.files[0].value)
    own: Mapping[str, nix.Value] = {
        "server": {
            "bind_address": port.bind,
            "port": port.published or port.listen,
        }
    }
    value: dict[str, nix.Value] = {
        "enable": True,
        "package": nix.Ref("pkgs.searxng"),
        "environmentFile": secret.place(run.host, f"{workload.name}.env") if variables.secret else None,
        "settings": override(declared, own),
    }
    return Made(
        options={"services": {"searx": given(value)}},
        unit="searx.service",
        form=workload.forms[0],
        module=True,
        secrets=variables.secret,
    )
