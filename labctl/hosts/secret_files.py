"""What stands in secret files: known only when they are written."""

from __future__ import annotations

from labctl.artefact import Format, SecretFile
from labctl.diagnostics import Diagnostic
from labctl.emit import EmitError, env
from labctl.hosts.base import HostError
from labctl.secrets import Secrets


def secret_content(secret: SecretFile, secrets: Secrets) -> bytes:
    """Return what is written to a secret file. HostError (LAB109) for a value that cannot be written."""
    values = {name: secrets.join(text) for name, text in secret.entries.items()}
    if secret.format is Format.RAW:
        return "".join(values.values()).encode()
    try:
        return env.dump(values).encode()
    except EmitError as error:
        raise HostError(Diagnostic(code="LAB109", summary=str(error), path=secret.origin or None)) from error
