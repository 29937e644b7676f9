"""What a cluster without machines lacks: a fake kubelet, a fake storage provisioner, a fake Helm controller.

The kubelet says that pods which the real scheduler bound to a fake node run, and that those of jobs have finished.
Images decide otherwise: ``…:does-not-exist`` cannot be pulled, ``…:crashes`` crashes again and again, ``…:fails`` ends
with status 1, ``…:never-ready`` runs and is not ready. It serves logs, too. The provisioner makes a volume for a claim
whose pod was scheduled. The Helm controller notes a job for every HelmChart and installs nothing.
"""

from __future__ import annotations

import contextlib
import http.server
import ssl
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labctl.artefact import Cluster
from labctl.kube.api import MERGE, Api, ApiError, Unreachable, Value
from labctl.kube.connect import connect

TICK = 0.25
LOG = ("loading the model", "listening on 0.0.0.0")
CRASH = ("loading the model", "boom: out of memory")


def main(folder: str, port: str) -> None:
    """Look after the cluster until somebody ends this process."""
    threading.Thread(target=serve_logs, args=(Path(folder), int(port)), daemon=True).start()
    api = connect(Cluster(namespace="default", context="lab"), "fakes")
    while True:
        for task in (pods, claims, charts):
            with contextlib.suppress(ApiError, Unreachable):
                task(api)
        time.sleep(TICK)


def pods(api: Api) -> None:
    """Be the kubelet of every node."""
    for pod in api.call("GET", "/api/v1/pods", {"fieldSelector": "spec.nodeName!="}).value["items"]:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        with contextlib.suppress(ApiError):
            if meta.get("deletionTimestamp"):
                api.call("DELETE", path, body={"gracePeriodSeconds": 0})
            elif pod["status"].get("phase") == "Pending" and not pod["status"].get("containerStatuses"):
                api.call("PATCH", f"{path}/status", None, {"status": _status(pod)}, MERGE)


def _status(pod: Value) -> dict[str, Any]:
    job = any(o["kind"] == "Job" for o in pod["metadata"].get("ownerReferences") or ())
    containers = [_container(c, job=job) for c in pod["spec"]["containers"]]
    ready = all(c["ready"] for c in containers)
    finished = job and all("terminated" in c["state"] for c in containers)
    pulled = not any(
        "waiting" in c["state"] and c["state"]["waiting"]["reason"] != "CrashLoopBackOff" for c in containers
    )
    word = "True" if ready else "False"
    conditions = {"PodScheduled": "True", "Initialized": "True", "ContainersReady": word, "Ready": word}
    return {
        "phase": _ended(containers) if finished else "Running" if pulled else "Pending",
        "startTime": _now(),
        "podIP": "10.42.0.9",
        "hostIP": "127.0.0.1",
        "conditions": [{"type": k, "status": v, "lastTransitionTime": _now()} for k, v in conditions.items()],
        "containerStatuses": containers,
    }


def _ended(containers: list[dict[str, Any]]) -> str:
    failed = any(c["state"]["terminated"]["exitCode"] for c in containers)
    return "Failed" if failed else "Succeeded"


def _container(container: Value, *, job: bool) -> dict[str, Any]:
    image = str(container["image"])
    restarts, last, ready = 0, {}, False
    state: dict[str, Any] = {"running": {"startedAt": _now()}}
    if image.endswith(":does-not-exist"):
        state = {"waiting": {"reason": "ErrImageNeverPull", "message": f"{image} is not there and is never pulled"}}
    elif image.endswith(":crashes"):
        restarts, last = 5, {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": _now()}}
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}
    elif job:
        code = int(image.endswith(":fails"))
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": _now()}}
    elif not image.endswith(":never-ready"):
        ready = True
    return {
        "name": container["name"],
        "image": image,
        "imageID": "fake",
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": last,
    }


def claims(api: Api) -> None:
    """Be the provisioner of the storage class ``local-path``."""
    for claim in api.items("/api/v1/persistentvolumeclaims"):
        meta, spec = claim["metadata"], claim["spec"]
        chosen = (meta.get("annotations") or {}).get("volume.kubernetes.io/selected-node")
        if claim["status"].get("phase") != "Pending" or not chosen or spec.get("volumeName"):
            continue
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"pvc-{meta['uid']}"},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "storageClassName": spec.get("storageClassName"),
                "persistentVolumeReclaimPolicy": "Delete",
                "hostPath": {"path": f"/fake/{meta['uid']}"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            },
        }
        with contextlib.suppress(ApiError):
            api.call("POST", "/api/v1/persistentvolumes", None, volume)


def charts(api: Api) -> None:
    """Be k3s's Helm controller, without helm: note a job that has finished."""
    for chart in api.items("/apis/helm.cattle.io/v1/helmcharts"):
        meta = chart["metadata"]
        if not (chart.get("status") or {}).get("jobName"):
            path = f"/apis/helm.cattle.io/v1/namespaces/{meta['namespace']}/helmcharts/{meta['name']}/status"
            status = {"jobName": f"helm-install-{meta['name']}"}
            with contextlib.suppress(ApiError):
                api.call("PATCH", path, None, {"status": status}, MERGE)


class _Logs(http.server.BaseHTTPRequestHandler):
    """The kubelet's logs: ``/containerLogs/namespace/pod/container``."""

    def do_GET(self) -> None:
        """Answer one request."""
        words = self.path.partition("?")[0].split("/")
        lines = CRASH if "previous=true" in self.path else LOG
        body = "".join(f"{line} ({words[-1]})\n" for line in lines).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve_logs(folder: Path, port: int) -> None:
    """Serve logs with the API server's own certificate."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Logs)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pki/apiserver.crt", folder / "pki/apiserver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    main(*sys.argv[1:])
