"""What the schema of the built-in gateway's block cannot see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl.diagnostics import Diagnostic
from labctl.gateways.builtin.options import BuiltinBlock
from labctl.model.unknown import unknown_name
from labctl.workload import Endpoint


def problems(options: BuiltinBlock, endpoints: Sequence[Endpoint]) -> Iterator[Diagnostic]:
    """Yield every problem of the block, with document paths."""
    deployments = {str(e.origin[-1]) for e in endpoints}
    for key, names in (("pin", options.pin), ("preload", options.preload)):
        for i, name in enumerate(names):
            if name not in deployments:
                yield unknown_name("LAB053", "deployment", name, deployments, ("gateway", key, i))
    public = {name for e in endpoints for name in e.serves}
    for user, block in options.keys.users.items():
        for i, name in enumerate(block.models):
            if name not in public:
                path = ("gateway", "keys", "users", user, "models", i)
                yield unknown_name("LAB132", "public name", name, public, path)
