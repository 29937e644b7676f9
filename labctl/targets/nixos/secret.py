"""Secrets of workloads: files outside the store, named by their place at run time, whoever writes them.

``labctl`` writes them itself, before the system is activated. With ``sops-nix`` and ``agenix`` they are in the hands of
those: the modules say which secrets they want, and labctl reads no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labctl.artefact import Format, SecretFile
from labctl.diagnostics import DocPath
from labctl.emit import nix
from labctl.placed import PlacedHost
from labctl.targets.nixos import folder
from labctl.targets.nixos.run import Options
from labctl.workload import SecretRef, SecretText


def keeper(host: PlacedHost) -> str:
    """Return who brings secrets to the host: ``labctl``, ``sops-nix`` or ``agenix``."""
    return str((host.machine or {}).get("secrets", "labctl"))


def place(host: PlacedHost, name: str) -> nix.Value:
    """Return what an option takes for the place of a secret file: a string, never a path, so nothing is copied."""
    match keeper(host):
        case "sops-nix":
            return nix.Ref("config.sops.templates", name, "path")
        case "agenix":
            return nix.Ref("config.age.secrets", name, "path")
        case _:
            return f"/{folder.secret(host, name)}"


def environment(host: PlacedHost, name: str, variables: Mapping[str, SecretText]) -> Options:
    """Return the options that another keeper needs for an environment file; none for labctl."""
    lines: list[str | nix.Ref] = []
    for variable, text in sorted(variables.items()):
        lines += [f'{variable}="', *_parts(text), '"\n']
    return _kept(host, name, lines, [text for _, text in sorted(variables.items())])


def credential(host: PlacedHost, name: str, text: SecretText) -> Options:
    """Return the options that another keeper needs for a file with one secret; none for labctl."""
    return _kept(host, name, list(_parts(text)), [text])


def files(
    host: PlacedHost, name: str, variables: Mapping[str, SecretText], form: Format, origin: DocPath
) -> Iterator[SecretFile]:
    """Yield the file that labctl itself writes."""
    if keeper(host) == "labctl" and variables:
        yield SecretFile(
            host=host.name, path=folder.secret(host, name), entries=dict(variables), format=form, origin=origin
        )


def _kept(host: PlacedHost, name: str, lines: list[str | nix.Ref], texts: list[SecretText]) -> Options:
    match keeper(host):
        case "sops-nix":
            names = sorted({secret for text in texts for secret in text.names})
            wanted: dict[str, nix.Value] = {secret: {} for secret in names}
            return {"sops": {"secrets": wanted, "templates": {name: {"content": nix.Text(*lines)}}}}
        case "agenix":
            return {"age": {"secrets": {name: {"file": f"{_folder(host)}/{name}.age"}}}}
        case _:
            return {}


def _parts(text: SecretText) -> Iterator[str | nix.Ref]:
    for part in text.parts:
        yield nix.Ref("config.sops.placeholder", part.name) if isinstance(part, SecretRef) else part


def _folder(host: PlacedHost) -> str:
    """Return the folder of the machine with the files that agenix decrypts."""
    return str((host.machine or {}).get("secrets_folder") or "/etc/agenix")
