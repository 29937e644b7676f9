"""The whole of lab.yaml: the shell that every lab has, and the typed lab that the shell and the registries make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from labctl.diagnostics import At, Diagnostic, DocPath, Result
from labctl.model.artefacts import Model
from labctl.model.base import Block, Name, SecretName
from labctl.model.deployment import Deployment
from labctl.model.fields import ImageName, OneOrMany, conflict
from labctl.model.gateway import GatewayBlock
from labctl.model.host import Host
from labctl.model.problems import from_pydantic
from labctl.model.service import ServiceBlock
from labctl.model.unknown import unknown_name
from labctl.values import dataclass

B = TypeVar("B", bound=Block)


class Group(Block):
    """Deployments that do not all run at a time: of ``exclusive`` ones one, of ``swap`` ones as many as fit."""

    exclusive: Annotated[tuple[Name, ...], Field(description="deployments that never run together", min_length=2)] = ()
    swap: Annotated[
        tuple[Name, ...],
        Field(description="on-demand deployments of which the gateway keeps loaded what fits", min_length=2),
    ] = ()
    active: Annotated[
        Name | None, Field(description="the one of `exclusive` that runs after `apply`; default: the first")
    ] = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.exclusive) == bool(self.swap):
            conflict("a group is either `exclusive` or `swap`", "list its deployments under one of the two")
        return self

    @property
    def key(self) -> str:
        """The key under which its members stand."""
        return "exclusive" if self.exclusive else "swap"

    @property
    def members(self) -> tuple[str, ...]:
        """Its deployments."""
        return self.exclusive or self.swap


class Images(Block):
    """Where container images come from."""

    mirror: Annotated[str | None, Field(description="registry (and folder) that replaces every image's own")] = None
    replace: Annotated[dict[str, ImageName], Field(description="engine or service → the image to use for it")] = {}


class Secrets(Block):
    """Where secret values come from. Names are collected from what needs them; values are read only when applying."""

    source: Annotated[
        str | dict[Literal["command"], Annotated[tuple[str, ...], Field(min_length=1)]],
        Field(alias="from", description="`.env` (a file), `environment`, or `{command: [sops, -d, secrets.env]}`"),
    ] = ".env"
    generate: Annotated[
        OneOrMany[SecretName], Field(description="secrets that labctl invents once and keeps on the host")
    ] = ()


class Shell(Block):
    """Every key of lab.yaml. Open axes are mappings here; their own models read them in a second pass."""

    lab: Annotated[Name, Field(description="name of the lab", examples=["my-lab"])]
    hosts: Annotated[dict[Name, Host], Field(description="the machines", min_length=1)]
    models: Annotated[dict[Name, Model], Field(description="the models, by their source")] = {}
    deployments: Annotated[dict[Name, dict[str, Any]], Field(description="what serves which model where")] = {}
    gateway: Annotated[dict[str, Any] | None, Field(description="the one endpoint in front of everything")] = None
    services: Annotated[dict[Name, dict[str, Any] | None], Field(description="databases, monitoring, pages…")] = {}
    groups: Annotated[dict[Name, Group], Field(description="deployments that take turns")] = {}
    images: Images = Images()
    secrets: Secrets = Secrets()


class Specs(Protocol):
    """The registries, as the model needs them: block types by name."""

    def names(self, axis: str) -> Iterable[str]:
        """Return the names on ``engines``, ``gateways``, ``services`` or ``targets``."""
        ...

    def engine(self, name: str) -> type[Deployment] | None:
        """Return the block type of an engine, None when there is no such engine."""
        ...

    def gateway(self, name: str) -> type[GatewayBlock] | None:
        """Return the block type of a gateway, None when there is no such gateway."""
        ...

    def service(self, kind: str) -> type[ServiceBlock] | None:
        """Return the block type of a service, None when there is no such service."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A validated lab. Mappings keep the order of the file; nothing may depend on that order."""

    name: str
    hosts: Mapping[str, Host]
    models: Mapping[str, Model] = field(default_factory=dict)
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    gateway: GatewayBlock | None = None
    services: Mapping[str, ServiceBlock] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    images: Images = field(default_factory=Images)
    secrets: Secrets = field(default_factory=Secrets)

    @property
    def gateway_host(self) -> str | None:
        """Return the gateway's host: as declared, or the only one there is; None when there is no gateway."""
        if self.gateway is None:
            return None
        return self.gateway.host or (next(iter(self.hosts)) if len(self.hosts) == 1 else None)


def read_lab(data: Mapping[str, Any], specs: Specs) -> Result[Lab]:
    """Validate plain data against the schema; all problems at once, with document paths and no spans yet."""
    data = frozen({k: v for k, v in data.items() if not str(k).startswith("x-")})
    reader = _Reader(specs)
    shell = reader.block(Shell, data, ())
    if shell is None:
        reader.open_axes(data)
        return Result(None, tuple(reader.problems))
    deployments = reader.deployments(shell.deployments)
    services = reader.services(shell.services)
    gateway = reader.gateway(shell.gateway) if shell.gateway is not None else None
    if "gateway" in data and gateway is None:
        reader.empty_gateway(data["gateway"])
    reader.targets(shell.hosts)
    lab = Lab(
        name=shell.lab,
        hosts=shell.hosts,
        models=shell.models,
        deployments=deployments,
        gateway=gateway,
        services=services,
        groups=shell.groups,
        images=shell.images,
        secrets=shell.secrets,
    )
    return Result(lab, tuple(reader.problems))


def frozen(value: Any) -> Any:
    """Return plain data with its lists as tuples, as strict models want them."""
    if isinstance(value, dict):
        return {k: frozen(v) for k, v in value.items()}
    return tuple(frozen(v) for v in value) if isinstance(value, list) else value


class _Reader:
    """Reads blocks and gathers their problems."""

    def __init__(self, specs: Specs) -> None:
        self.specs = specs
        self.problems: list[Diagnostic] = []

    def block(self, model: type[B], data: Any, path: DocPath) -> B | None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            self.problems += from_pydantic(error.errors(include_url=False), path, model)
            return None

    def open_axes(self, data: Mapping[str, Any]) -> None:
        """Look for problems in the second pass although the first one failed."""
        for key, read in (("deployments", self.deployments), ("services", self.services)):
            part = data.get(key)
            if isinstance(part, dict):
                read({k: v for k, v in part.items() if isinstance(v, dict)})
        if isinstance(data.get("gateway"), dict):
            self.gateway(data["gateway"])

    def deployments(self, blocks: Mapping[str, Any]) -> dict[str, Deployment]:
        found: dict[str, Deployment] = {}
        for name, data in blocks.items():
            path: DocPath = ("deployments", name)
            model = self.specs.engine(data["engine"]) if isinstance(data.get("engine"), str) else Deployment
            if model is None:
                self.problems.append(
                    unknown_name("LAB056", "engine", data["engine"], self.specs.names("engines"), (*path, "engine"))
                )
            elif block := self.block(model, data, path):
                found[name] = block
            elif model is Deployment:
                self._forgive_keys(path)
        return found

    def _forgive_keys(self, path: DocPath) -> None:
        """Without an engine nobody knows which keys are good: say only what is certain."""
        self.problems = [p for p in self.problems if p.code != "LAB021" or (p.path or ())[: len(path)] != path]

    def services(self, blocks: Mapping[str, Any]) -> dict[str, ServiceBlock]:
        found: dict[str, ServiceBlock] = {}
        for name, data in blocks.items():
            path: DocPath = ("services", name)
            kind = (data or {}).get("kind", name)
            model = self.specs.service(kind) if isinstance(kind, str) else ServiceBlock
            if model is None:
                where = (*path, "kind") if "kind" in (data or {}) else path
                self.problems.append(
                    unknown_name("LAB057", "service", kind, self.specs.names("services"), where, key=True)
                )
            elif block := self.block(model, data or {}, path):
                found[name] = block
        return found

    def gateway(self, data: Mapping[str, Any]) -> GatewayBlock | None:
        path: DocPath = ("gateway",)
        engine = data.get("engine")
        model = self.specs.gateway(engine) if isinstance(engine, str) else GatewayBlock
        if model is None:
            self.problems.append(
                unknown_name("LAB058", "gateway", str(engine), self.specs.names("gateways"), (*path, "engine"))
            )
            return None
        return self.block(model, data, path)

    def empty_gateway(self, data: Any) -> None:
        """A key without a value is a slip, not a lab without a gateway."""
        if data is None:
            hint = "write `gateway: {engine: litellm}`, or delete the key"
            found = Diagnostic(code="LAB022", summary="`gateway` has no value", path=("gateway",), at=At.KEY, hint=hint)
            self.problems.append(found)

    def targets(self, hosts: Mapping[str, Host]) -> None:
        known = tuple(self.specs.names("targets"))
        for name, host in hosts.items():
            if host.target not in known:
                self.problems.append(unknown_name("LAB059", "target", host.target, known, ("hosts", name, "target")))
