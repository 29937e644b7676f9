"""What ``fleet`` needs of something that is not a machine with a shell: a Kubernetes cluster.

The room that implements it imports this one, so it is named here and imported when a lab has such a root.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Final, Protocol, cast

from labctl.artefact import HostRoot, Tree, Unit
from labctl.hosts.base import Emit, Outcome
from labctl.hosts.state import Lock
from labctl.plan.model import Plan
from labctl.plan.observed import SecretDigests, SeenHost
from labctl.secrets import Secrets
from labctl.values import dataclass

KUBERNETES: Final = "labctl.kube.backend"
"""Module whose object ``backend`` looks after roots with a ``cluster``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to apply to one root, and how.

    Attributes:
        plan: the whole plan; ``tree``: this root's part of the tree.
        exact: refuse when anything has moved since the plan was made.
        wait: seconds to wait for somebody else's lock; ``break_lock``: take it from a living holder.
        force: take over fields that other managers own.
        check: called between two steps; raises ``Stopped`` to end it there.
    """

    root: HostRoot
    tree: Tree
    plan: Plan
    secrets: Secrets
    emit: Emit
    exact: bool = False
    wait: float = 0
    break_lock: bool = False
    force: bool = False
    check: Callable[[], None] = field(default=lambda: None)


class Backend(Protocol):
    """Looks after one kind of root."""

    def observe(self, root: HostRoot, tree: Tree, secrets: Secrets | None) -> SeenHost:
        """Return what is there of a root's part of the tree; incomplete, with the reason, when it cannot be seen."""
        ...

    def units(self, root: HostRoot, tree: Tree) -> SeenHost:
        """Return how the root's units are doing, and nothing else."""
        ...

    def digests(self, root: HostRoot, tree: Tree, secrets: Secrets) -> SecretDigests:
        """Return the keyed digest that each thing with secret values is to have, as far as there is a key."""
        ...

    def apply(self, order: Order) -> tuple[Outcome, tuple[str, ...]]:
        """Carry out a plan's part; return how it went and the addresses at which the plan was stale."""
        ...

    def logs(self, root: HostRoot, unit: Unit, *, lines: int, follow: bool) -> Iterator[str]:
        """Yield a unit's last log lines and, when asked, those to come."""
        ...

    def log(self, root: HostRoot) -> bytes:
        """Return the log of applies, a JSON line each, as hosts keep it. HostError when it cannot be read."""
        ...

    def lock(self, root: HostRoot) -> Lock | None:
        """Return the lock, None when there is none. HostError when it cannot be asked."""
        ...

    def note(self, root: HostRoot) -> bytes | None:
        """Return what ``leave_note`` left there, None when it left nothing. HostError when it cannot be asked."""
        ...

    def leave_note(self, root: HostRoot, content: bytes | None) -> None:
        """Leave a short text for the next command (whose turn it is), or none any more. HostError on failure."""
        ...


def backend_of(root: HostRoot) -> Backend | None:
    """Return what looks after a root, None for a machine that is reached by a shell."""
    if root.cluster is None:
        return None
    return cast("Backend", importlib.import_module(KUBERNETES).backend)
