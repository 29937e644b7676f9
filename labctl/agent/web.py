"""Asking URLs from the host."""

from __future__ import annotations

import http.client
import urllib.parse

from labctl.agent.call import Call, Reply, answer


def probe(call: Call) -> Reply:
    """Ask a ``url`` with GET, without proxies and without following redirects; ``status`` is None without an answer."""
    parts = urllib.parse.urlsplit(str(call.values["url"]))
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "localhost", parts.port, timeout=float(call.values["timeout"]))
    try:
        connection.request("GET", parts._replace(scheme="", netloc="").geturl() or "/")
        return answer(status=connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return answer(status=None)
    finally:
        connection.close()
