"""Waiting for a cluster whose machines have only just been set up, or whose server starts anew."""

from __future__ import annotations

import time
from typing import Final

from labctl.diagnostics import Diagnostic
from labctl.hosts.backend import Order
from labctl.hosts.base import HostError
from labctl.hosts.events import HostPhase, Phase, Waiting
from labctl.kube import problems
from labctl.kube.api import Api, ApiError, Unreachable
from labctl.kube.connect import NOT_YET, UNREADABLE, connect
from labctl.kube.kinds import discover
from labctl.kube.listing import cluster_of

LIMIT: Final = 300
"""Seconds that an API server may take: k3s unpacks itself and makes its certificates when it first starts."""
KINDS: Final = 90
"""Seconds after which missing kinds are said to be missing: k3s registers its own once the server answers."""
TICK: Final = 1.0
READY: Final = "/readyz"
_FORBIDDEN: Final = 403


def arrived(order: Order) -> Api:
    """Return a connection as soon as the server answers and has the kinds of the tree.

    HostError when it does not answer in time, or when it will not let one in. That kinds are missing is not said here:
    looking at the cluster tells which.
    """
    host = order.root.host
    begun, told = time.monotonic(), ""
    while True:
        seconds = time.monotonic() - begun
        found = _look(order)
        if isinstance(found, Api) and (seconds > KINDS or not _lacking(found, order)):
            return found
        if isinstance(found, Diagnostic) and seconds > LIMIT:
            raise HostError(found)
        what = "waiting for the kinds that k3s brings" if isinstance(found, Api) else "waiting for its API server"
        if what != told:
            order.emit(HostPhase(host=host, phase=Phase.CONNECTING, detail=what))
            told = what
        order.emit(Waiting(host=host, unit="API server", seconds=seconds, limit=LIMIT))
        order.check()
        time.sleep(TICK)


def _look(order: Order) -> Api | Diagnostic:
    """Return a connection to a server that is ready, or why it is not. One that may not tell this login is ready."""
    cluster = cluster_of(order.root)
    try:
        api = connect(cluster, order.root.host)
    except HostError as error:
        unfinished = {NOT_YET, UNREADABLE} if cluster.server is not None else {NOT_YET}
        if error.diagnostic.code not in unfinished:
            raise
        return error.diagnostic
    api.check = order.check
    try:
        api.call("GET", READY)
    except (ApiError, Unreachable) as error:
        if not isinstance(error, ApiError) or error.code != _FORBIDDEN:
            return problems.of_server(error, api=api)
    return api


def _lacking(api: Api, order: Order) -> bool:
    """Whether the server lacks kinds of the tree that the tree does not bring itself."""
    objects = order.tree.objects
    brought = {o.value["spec"]["group"] for o in objects if o.value["kind"] == "CustomResourceDefinition"}
    wanted = {(str(o.value["apiVersion"]), str(o.value["kind"])) for o in objects}
    wanted = {(version, kind) for version, kind in wanted if version.partition("/")[0] not in brought}
    return bool(wanted - discover(api, {version for version, _ in wanted}).keys())
