"""What several services do the same way. A service uses these; nothing makes it do so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from labctl.diagnostics import Diagnostic
from labctl.model.base import SecretName, Size
from labctl.model.service import ServiceBlock
from labctl.placed import DatabaseLink, PlacedHost
from labctl.services import Access, Part, ServiceAsk
from labctl.workload import Container, EnvValue, Mount, Port, SecretRef, SecretText

KEY_FILE: Final = "/dev/shm/labctl-{lab}-{name}"  # noqa: S108 - in memory, readable by its owner only
"""Where a service puts a secret that its program reads from a file: gone at the next start of container or machine."""


DATA: Final = "LABCTL_DATA"
"""Variable of a native program: the folder, below the one it runs in, with its data. Goes with ``destroy --data``."""


class Environment(ServiceBlock):
    """Keys of services that are set up by environment variables."""

    env: Annotated[dict[str, str], Field(description="further environment; laid over what labctl sets")] = {}
    secret_env: Annotated[dict[str, SecretName], Field(description="further environment whose values are secrets")] = {}

    @property
    def extra_env(self) -> dict[str, EnvValue]:
        """Both, as a workload's."""
        return {**self.env, **{name: secret(value) for name, value in self.secret_env.items()}}


class Stored(Environment):
    """Keys of services that keep data in a volume."""

    volume: Annotated[
        str | None, Field(description="volume that holds the data; default: the service's name and `-data`")
    ] = None
    storage: Annotated[Size | None, Field(description="how large the volume may become, where the target can say")] = (
        None
    )


class Plain:
    """A service with one workload on one host, that offers no database and wants nothing of the gateway."""

    name: ClassVar[str]
    ports: Mapping[str, int] = MappingProxyType({})
    page: str | None = None
    calls: tuple[str, ...] = ()
    watches: bool = False
    watched: bool = False
    open: bool = False

    def check(self, name: str, options: Any) -> Iterable[Diagnostic]:
        """Return a problem when it is to run on several hosts, since its data would be apart."""
        if len(options.places) > 1:
            yield Diagnostic(
                code="LAB138",
                summary=f"`{name}` keeps its data in one place and cannot run on {len(options.places)} hosts",
                path=("services", name, "hosts"),
                hint=f"write `host:` and one name, or a second service with `kind: {self.name}`",
            )

    def parts(self, name: str, options: Any, hosts: Mapping[str, PlacedHost]) -> Iterable[Part]:  # noqa: ARG002
        """Return one instance per host; on several, each is called after its own."""
        several = len(options.places) > 1
        for host in options.places:
            own = f"{name}-{host}" if several else name
            yield Part(name=own, kind=self.name, host=host, options=options, origin=("services", name))

    def image(self, options: Any, host: PlacedHost) -> str:  # noqa: ARG002
        """Return its own name."""
        return self.name

    def client(self, options: Any) -> tuple[Access, str] | None:  # noqa: ARG002
        """Want nothing."""
        return None

    def keeps(self, options: Any) -> str | None:  # noqa: ARG002
        """Keep data in no database."""
        return None

    def database(self, ask: ServiceAsk, host: str, port: int, *, same_host: bool) -> DatabaseLink | None:  # noqa: ARG002
        """Offer none."""
        return None


def secret(name: str) -> SecretText:
    """Return a variable whose value is one secret."""
    return SecretText((SecretRef(name),))


def data(ask: ServiceAsk, target: str) -> Mount:
    """Return the volume of a service's data, at ``target`` in its container."""
    options: Stored = ask.options
    return Mount(source=options.volume or f"{ask.name}-data", target=target, volume=True, size=options.storage)


def listening(port: Port) -> str:
    """Return the address of a native program as Go's programs take it: ``127.0.0.1:9090``, ``[::1]:9090``."""
    address = f"[{port.bind}]" if ":" in port.bind else port.bind
    return f"{address}:{port.published or port.listen}"


def container(ask: ServiceAsk, *mounts: Mount, user: str | None = None, args: Iterable[str] = ()) -> Container:
    """Return the container form of a service."""
    own: str | None = ask.options.image
    return Container(
        image=own or ask.image,
        chosen=own is not None,
        mounts=mounts,
        probe=ask.probe,
        user=user,
        args=tuple(args),
    )
