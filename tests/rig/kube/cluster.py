"""Starting and ending the control plane, its nodes and its users."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from labctl.artefact import Cluster
from labctl.kube.api import APPLY, MERGE, Api, ApiError, Unreachable
from labctl.kube.connect import connect
from tests.rig.kube.pki import SERVER, Pki

CONTEXT = "lab"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
TOKEN = "token-of-somebody-without-rights"
SEED = Path(__file__).with_name("seed.yaml")


def binaries() -> Path | None:
    """Return the folder of the programs, None when one is missing: run tests/tools/install-kube."""
    tools = Path(os.environ.get("LABCTL_TOOLS") or Path.home() / ".cache/labctl-tools")
    folder = (tools / "kube").resolve()
    return folder if all(os.access(folder / name, os.X_OK) for name in PROGRAMS) else None


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class ControlPlane:
    """One control plane in a folder of its own."""

    folder: Path
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: free_ports(6))

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self.folder / "kubeconfig"

    @property
    def powerless(self) -> Path:
        """Kubeconfig of the user ``nobody``, who may do nothing until a role is bound."""
        return self.folder / "kubeconfig-nobody"

    @property
    def address(self) -> str:
        """Of the API server."""
        return f"https://127.0.0.1:{self.ports[2]}"

    def start(self, nodes: Mapping[str, int]) -> None:
        """Start everything, or nothing; ``nodes`` are names of fake nodes and how many GPUs each has."""
        try:
            self._start(nodes)
        except BaseException:
            self.stop()
            raise

    def _start(self, nodes: Mapping[str, int]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._certificates()
        etcd, peer = self.ports[:2]
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        self.start_api()
        self._controllers()
        self._seed(nodes)
        command = [sys.executable, "-m", "tests.rig.kube.fakes", str(self.folder), str(self.ports[5])]
        self._spawn("fakes", command, {"KUBECONFIG": str(self.kubeconfig)})
        self._ready(lambda api: api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None)

    def start_api(self) -> None:
        """Start the API server and wait until it is ready."""
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.ports[0]}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports[2]}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.43.0.0/16",
            *(f"--{flag}={self.folder / 'pki' / name}" for flag, name in _FILES.items()),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--anonymous-auth=false",
            "--profiling=false",
            "--enable-admission-plugins=NodeRestriction",
            f"--token-auth-file={self.folder / 'pki/tokens.csv'}",
            f"--audit-policy-file={self.folder / 'audit.yaml'}",
            f"--audit-log-path={self.folder / 'audit.log'}",
        )
        self._ready(lambda api: bool(api.call("GET", "/readyz").code == 200))

    def kill_api(self) -> None:
        """End the API server at once, as a power failure does."""
        program = self.programs.pop("kube-apiserver")
        program.kill()
        program.wait()

    def stop(self) -> None:
        """End exactly what was started, newest first, and remove the folder."""
        for name, program in reversed(self.programs.items()):
            program.send_signal(signal.SIGKILL if name != "fakes" else signal.SIGTERM)
        for program in self.programs.values():
            program.wait(10)
        self.programs.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def api(self, kubeconfig: Path | None = None) -> Api:
        """Return a connection of the administrator, or of another kubeconfig's user."""
        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(kubeconfig or self.kubeconfig)
        try:
            return connect(Cluster(namespace="default", context=CONTEXT), "test")
        finally:
            os.environ.pop("KUBECONFIG")
            if before is not None:
                os.environ["KUBECONFIG"] = before

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """Run kubectl as the administrator and return what it prints."""
        program = binaries()
        assert program is not None
        command = [str(program / "kubectl"), f"--kubeconfig={self.kubeconfig}", f"--context={CONTEXT}", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *objects: Mapping[str, Any], manager: str = "rig") -> None:
        """Apply objects as somebody else than labctl."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "-f", "-", stdin=text)

    def node(self, name: str, gpus: int) -> None:
        """Add a fake node, or say anew how many GPUs a device plug-in would report for it."""
        api = self.api()
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "nvidia.com/gpu.present": "true",
        }
        path, query = f"/api/v1/nodes/{name}", {"fieldManager": "rig", "force": "true"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        api.call("PATCH", path, query, node, APPLY)
        room = {"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti", "nvidia.com/gpu": str(gpus)}
        status = {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Fake", "message": "fake"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.ports[5]}},
        }
        api.call("PATCH", f"{path}/status", None, {"status": status}, MERGE)
        api.call("PATCH", path, None, {"spec": {"taints": None}}, MERGE)

    def _certificates(self) -> None:
        pki = Pki(self.folder / "pki")
        pki.sign("apiserver", "/CN=kube-apiserver", names=SERVER)
        pki.sign("admin", "/O=system:masters/CN=admin")
        pki.sign("controllers", "/CN=system:kube-controller-manager")
        pki.sign("scheduler", "/CN=system:kube-scheduler")
        (pki.folder / "tokens.csv").write_text(f"{TOKEN},nobody,nobody,nobodies\n")
        (self.folder / "audit.yaml").write_text(json.dumps(_AUDIT))
        for file, user, current in (
            (self.kubeconfig, _certificate(pki, "admin"), ""),
            (self.folder / "controllers.conf", _certificate(pki, "controllers"), CONTEXT),
            (self.folder / "scheduler.conf", _certificate(pki, "scheduler"), CONTEXT),
            (self.powerless, {"token": TOKEN}, ""),
        ):
            server = {"server": self.address, "certificate-authority-data": pki.base64("ca.crt")}
            file.touch(mode=0o600)
            file.write_text(yaml.safe_dump(kubeconfig(server, user, current)))

    def _controllers(self) -> None:
        pki = self.folder / "pki"
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.folder / 'controllers.conf'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports[3]}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            "--allocate-node-cidrs=false",
            "--controllers=*,-node-lifecycle-controller,-node-ipam-controller",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )
        self._run(
            "kube-scheduler",
            *(f"--{flag}={self.folder / 'scheduler.conf'}" for flag in _SCHEDULER),
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports[4]}",
            "--leader-elect=false",
        )

    def _seed(self, nodes: Mapping[str, int]) -> None:
        api = self.api()
        for value in yaml.safe_load_all(SEED.read_text()):
            group = value["apiVersion"]
            plural = f"{value['kind'].lower()}{'es' if value['kind'].endswith('ss') else 's'}"
            path = f"/apis/{group}/{plural}/{value['metadata']['name']}"
            api.call("PATCH", path, {"fieldManager": "k3s", "force": "true"}, value, APPLY)
        for name, gpus in nodes.items():
            self.node(name, gpus)

    def _run(self, name: str, *words: str) -> None:
        folder = binaries()
        assert folder is not None
        self._spawn(name, [str(folder / name), *words], {})

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def _ready(self, asked: Any, limit: float = 90) -> None:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            try:
                if asked(self.api()):
                    return
            except (ApiError, Unreachable):
                pass
            for name, program in self.programs.items():
                if program.poll() is not None:
                    tail = (self.folder / f"{name}.log").read_text()[-2000:]
                    message = f"{name} ended with {program.returncode}:\n{tail}"
                    raise RuntimeError(message)
            time.sleep(0.2)
        message = f"the control plane in {self.folder} is not ready after {limit} s"
        raise RuntimeError(message)


def kubeconfig(server: Mapping[str, str], user: Mapping[str, str], current: str = "") -> dict[str, Any]:
    """Return a kubeconfig with one context, that is not the current one unless it is to be."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": "c", "cluster": dict(server)}],
        "users": [{"name": "u", "user": dict(user)}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": "c", "user": "u"}}],
    }


def _certificate(pki: Pki, name: str) -> dict[str, str]:
    return {"client-certificate-data": pki.base64(f"{name}.crt"), "client-key-data": pki.base64(f"{name}.key")}


_FILES = {
    "tls-cert-file": "apiserver.crt",
    "tls-private-key-file": "apiserver.key",
    "client-ca-file": "ca.crt",
    "service-account-key-file": "sa.pub",
    "service-account-signing-key-file": "sa.key",
}
_SCHEDULER = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system", "system:nodes"]},
        {"level": "Request", "verbs": ["create", "update", "patch", "delete"]},
        {"level": "None"},
    ],
}
