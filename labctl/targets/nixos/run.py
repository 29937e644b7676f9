"""A workload of a NixOS host on its way to options, and what it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from labctl.artefact import SecretFile
from labctl.emit import nix
from labctl.placed import PlacedHost
from labctl.targets.nixos.release import Release
from labctl.values import dataclass
from labctl.workload import ConfigFile, Container, Native, SecretText, Workload

Options = Mapping[str, nix.Value]
"""Definitions of NixOS options, nested: ``{"services": {"ollama": {"enable": True}}}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A workload, the form that is looked at, and where it runs.

    Attributes:
        siblings: every workload of the host by name, itself among them.
        alone: whether it is the only workload of its product on the host.
    """

    host: PlacedHost
    release: Release
    workload: Workload
    form: Container | Native
    siblings: Mapping[str, Workload] = field(default_factory=dict)
    alone: bool = True

    @property
    def native(self) -> Native | None:
        """The workload's form as a program of the host, whichever form was chosen; None when it has none."""
        return next((form for form in self.workload.forms if isinstance(form, Native)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a workload becomes.

    Attributes:
        options: what ``services.nix`` says of it.
        unit: the systemd unit that runs it, with its suffix.
        form: the form that is run.
        module: whether a module of NixOS defines the unit, and starts it with the machine.
        restarts: whether the unit's definition brings it back when it ends.
        files: the files that its options name, below ``files/WORKLOAD``; they are copied into the store.
        secrets: the secret variables of its environment file.
        credentials: secret files that it reads through ``LoadCredential``, by name.
        unfree: names of packages without a free licence.
        companions: further units of its module that must not run while it rests.
        image: the image that it pulls.
        health: a command of the host that tells its health, where the workload's own is one inside a container.
    """

    options: Options
    unit: str
    form: Container | Native
    module: bool = False
    restarts: bool = False
    files: tuple[ConfigFile, ...] = ()
    secrets: Mapping[str, SecretText] = field(default_factory=dict)
    credentials: Mapping[str, SecretText] = field(default_factory=dict)
    unfree: frozenset[str] = frozenset()
    companions: tuple[str, ...] = ()
    image: str | None = None
    health: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A workload with what it became."""

    run: Run
    made: Made
    options: Options
    """``made.options`` with what holds for every unit: order, limits, restarts, and ``extra``."""
    artefacts: tuple[SecretFile, ...] = ()
