"""The ``gateway`` block of lab.yaml when its engine is llama-swap."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from labctl.model.base import Block, Duration, Name, Positive, SecretName
from labctl.model.gateway import GatewayBlock


class LlamaSwapKeys(Block):
    """Who may ask. llama-swap has one kind of key: each may do everything."""

    master: Annotated[SecretName | None, Field(description="secret that holds the key that is handed to people")] = None
    users: Annotated[dict[Name, SecretName], Field(description="further keys, by whom they are for")] = {}


class LlamaSwapBlock(GatewayBlock):
    """llama-swap: runs the on-demand llama.cpp servers of its host itself, in combinations that labctl has computed."""

    swaps: ClassVar[bool] = True
    parent: ClassVar[bool] = True

    port: Annotated[int, Field(description="host port of the endpoint and its page", ge=1, le=65535)] = 8888
    keys: LlamaSwapKeys = LlamaSwapKeys()
    pin: Annotated[tuple[Name, ...], Field(description="deployments that are loaded at the start and stay")] = ()
    preload: Annotated[tuple[Name, ...], Field(description="deployments that are loaded at the start")] = ()
    idle: Annotated[Duration | None, Field(description="unload models that nobody asked for so long")] = None
    requests: Annotated[
        Positive,
        Field(description="requests of one model, waiting ones among them; one more is answered 429"),
    ] = 50
    timeout: Annotated[Duration | None, Field(description="longest wait for a server's first byte")] = None
    loading: Annotated[
        bool, Field(description="tell streaming clients, as a thought, that a model is being loaded")
    ] = False
