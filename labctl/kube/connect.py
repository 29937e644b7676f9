"""From a cluster of the tree to a connection. The only module that imports the ``kubernetes`` package.

That package reads kubeconfigs with all their kinds of login (certificates, tokens, programs that print them, OIDC), the
account of a pod, proxies and certificate authorities, and keeps tokens fresh. What is asked of a server is labctl's.
Of a cluster whose server is a machine that labctl looks after, the kubeconfig is read there when it is needed.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from labctl.artefact import Cluster, HostRoot
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError
from labctl.hosts.connect import connect as reach
from labctl.kube.api import AT_ONCE, Api, Response, Unreachable
from labctl.values import dataclass

CONNECT_TIMEOUT: Final = 5
"""Seconds until a server that does not accept a connection counts as down."""
DEFAULT: Final = "~/.kube/config"
K3S: Final = Path("/etc/rancher/k3s/k3s.yaml")
TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


UNREADABLE: Final = "LAB170"
"""Code of a kubeconfig that is not there or cannot be used."""
NOT_YET: Final = "LAB204"
"""Code of a server that has not written its own kubeconfig yet."""


def connect(cluster: Cluster, host: str) -> Api:
    """Return a connection; nothing is asked yet.

    HostError when it is not clear to which server (LAB170), or when the machine that is the server cannot be asked.
    """
    from kubernetes.client.configuration import Configuration  # noqa: PLC0415 - 1 s of import
    from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415
    from kubernetes.config import ConfigException  # noqa: PLC0415
    from yaml import YAMLError  # noqa: PLC0415

    load: Any = importlib.import_module("kubernetes.config")  # its functions have no types
    settings = Configuration()
    try:
        if cluster.context is None and _in_pod():
            load.load_incluster_config(client_configuration=settings)
        elif cluster.context is None and cluster.server is not None:
            load.load_kube_config_from_dict(server_config(cluster.server), client_configuration=settings)
        else:
            load.load_kube_config(
                config_file=_files(),
                context=_context(cluster, host),
                client_configuration=settings,
                persist_config=False,
            )
    except (ConfigException, OSError, ValueError, TypeError, KeyError, YAMLError) as error:
        raise HostError(_unreadable(host, error)) from error
    settings.retries = False
    settings.connection_pool_maxsize = AT_ONCE + 2
    wire = _Wire(RESTClientObject(settings).pool_manager, settings, threading.Lock())
    return Api(wire.send, str(settings.host), cluster.context or _OWN[cluster.server is not None])


_OWN: Final = ("this pod's own account", "its server's own kubeconfig")


def server_config(server: HostRoot) -> Mapping[str, Any]:
    """Return the kubeconfig that k3s keeps on its server, with the address at which that is reached from here.

    HostError: LAB204 when k3s has not written it yet; the connection's own when the machine cannot be reached.
    """
    from yaml import safe_load  # noqa: PLC0415

    site = reach(server)
    try:
        content = site.shell.read(site.at(K3S.as_posix().lstrip("/")))
    except OSError as error:
        raise HostError(_not_yet(server, str(error.strerror or error))) from error
    config = safe_load(content) if content else None
    if not isinstance(config, dict) or not config.get("clusters"):
        raise HostError(_not_yet(server, "it is not there"))
    address = f"[{server.address}]" if ":" in server.address else server.address
    for entry in config["clusters"]:
        url = urlsplit(str(entry["cluster"]["server"]))
        entry["cluster"]["server"] = f"{url.scheme}://{address}:{url.port or 6443}"
    return config


def _not_yet(server: HostRoot, why: str) -> Diagnostic:
    return Diagnostic(
        code=NOT_YET,
        summary=f"`{server.host}` has no kubeconfig for its cluster: {why}",
        detail=f"{K3S}, which k3s writes when it starts",
        hint=f"is k3s running there (`systemctl status k3s`)? `labctl apply --host {server.host}` sets it up",
    )


@dataclass(frozen=True, slots=True)
class _Wire:
    """urllib3's pool with the login of a configuration."""

    pool: Any
    settings: Any
    lock: threading.Lock

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float | None,
    ) -> Response:
        """Make one request; without a ``timeout`` its answer is a stream."""
        from urllib3 import Timeout  # noqa: PLC0415
        from urllib3.exceptions import HTTPError, SSLError  # noqa: PLC0415

        try:
            answer = self.pool.request(
                method,
                f"{self.settings.host}{target}",
                body=body,
                headers={**headers, **self._login()},
                timeout=Timeout(connect=CONNECT_TIMEOUT, read=timeout),
                preload_content=timeout is not None,
                retries=False,
            )
        except SSLError as error:
            raise Unreachable(str(error), tls=True) from error
        except HTTPError as error:
            raise Unreachable(_plain(error)) from error
        return cast("Response", answer)

    def _login(self) -> dict[str, str]:
        """Return the header of the login, fetching a new token when the old one has run out."""
        with self.lock:
            settings = self.settings.auth_settings()
        return {a["key"]: a["value"] for a in settings.values() if a["in"] == "header" and a["value"]}


def _in_pod() -> bool:
    return "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ and TOKEN.exists()


def _files() -> str:
    """Return the kubeconfigs, as ``KUBECONFIG`` has them: a list with colons."""
    return os.environ.get("KUBECONFIG") or str(Path(DEFAULT).expanduser())


def _context(cluster: Cluster, host: str) -> str:
    """Return the context to use: the one that lab.yaml names, never the one that happens to be current."""
    names = _contexts(host)
    known = ", ".join(f"`{n}`" for n in names) or "none"
    if cluster.context is None:
        raise HostError(
            Diagnostic(
                code="LAB170",
                summary=f"lab.yaml does not say which Kubernetes context `{host}` is",
                detail=f"contexts in {_files()}: {known}",
                hint="write `k3s: {context: NAME}` for its hosts: the one that happens to be current is never used",
            )
        )
    if cluster.context not in names:
        raise HostError(
            Diagnostic(
                code="LAB170",
                summary=f"there is no Kubernetes context `{cluster.context}` for `{host}`",
                detail=f"contexts in {_files()}: {known}",
                hint="`kubectl config get-contexts` lists them; KUBECONFIG names the file",
            )
        )
    return cluster.context


def _contexts(host: str) -> list[str]:
    files = [f for f in _files().split(os.pathsep) if f]
    if not any(Path(f).expanduser().exists() for f in files):
        k3s = f"; k3s writes {K3S}, readable by root: copy it and name its context" if K3S.exists() else ""
        raise HostError(
            Diagnostic(
                code="LAB170",
                summary=f"there is no kubeconfig for `{host}`: {', '.join(files)} does not exist",
                hint=f"set KUBECONFIG to the cluster's file{k3s}",
            )
        )
    merger: Any = importlib.import_module("kubernetes.config.kube_config").KubeConfigMerger
    contexts = merger(_files()).config.safe_get("contexts") or ()
    return sorted(str(c["name"]) for c in contexts)


def _unreadable(host: str, error: Exception) -> Diagnostic:
    return Diagnostic(
        code="LAB170",
        summary=f"the kubeconfig for `{host}` cannot be used: {error}",
        hint="`kubectl config view` checks it; KUBECONFIG names the file",
    )


def _plain(error: Exception) -> str:
    """Return what urllib3 says without its own objects in it."""
    text = str(error)
    return text.rsplit(": ", 1)[-1] if "object at 0x" in text else text
