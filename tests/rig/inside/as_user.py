"""What ``test_user_units`` has another user do: apply a lab of user units, look at it, remove it. Prints JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from labctl.workload import Health, Native, Port, SecretRef, SecretText, Workload
from tests.rig.inside.labs import Lab, ask

SERVE = (
    "import http.server,sys\n"
    "t=open(sys.argv[1]).read()\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "  def do_GET(s): s.send_response(200); s.end_headers(); s.wfile.write(t.encode())\n"
    "  def log_message(s,*a): pass\n"
    "http.server.HTTPServer(('127.0.0.1',8301),H).serve_forever()\n"
)


def lab() -> Lab:
    """Return a lab with one server, which reads a secret from a file."""
    form = Native(
        program="/usr/bin/python3",
        args=("-c", SERVE, "{credential:key}"),
        credentials={"key": SecretText((SecretRef("TOKEN"),))},
    )
    web = Workload(
        name="web",
        host="here",
        forms=(form,),
        ports=(Port(name="http", listen=8301, published=8301),),
        health=Health(path="/", interval=1, retries=2, timeout=2, start_period=15),
    )
    return Lab("systemd", {"web": web}, options={"user_units": True})


def do(what: str) -> dict[str, Any]:
    """Do one thing and tell how it went."""
    made = lab()
    if what == "plan":
        plan = made.plan()
        return {"complete": plan.complete, "codes": [d.code for d in plan.diagnostics]}
    report = made.destroy() if what == "destroy" else made.apply()
    problems = [*report.diagnostics, *(d for o in report.outcomes.values() for d in o.failed.values())]
    return {
        "ok": report.ok,
        "codes": [d.code for d in problems],
        "hints": [d.hint for d in problems],
        "todo": made.todo(),
        "answer": ask(8301) if report.ok and what == "apply" else "",
        "runtime": os.environ.get("XDG_RUNTIME_DIR"),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(do(sys.argv[1])))
