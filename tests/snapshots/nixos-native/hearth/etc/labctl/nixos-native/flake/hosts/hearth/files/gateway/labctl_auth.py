"""Runs inside LiteLLM, beside its config.yaml: who may ask for what while there is no database.

The master key opens everything. ``LABCTL_KEY_MODELS_…`` and ``LABCTL_KEY_METRICS_…`` hold the keys of the lab's own
services: each is good for models, or for figures, and for nothing else.

LiteLLM's own check answers a wrong key with "400 No connected db" then; clients expect 401.
"""

import os
import secrets

from fastapi import Request
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

PREFIX = "LABCTL_KEY_"
MODELS = ("models", "chat/completions", "completions", "embeddings", "responses", "rerank", "audio", "images")
PATHS = {
    "MODELS": tuple(f"{base}{name}" for name in MODELS for base in ("/", "/v1/")),
    "METRICS": ("/metrics",),
}


async def check(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Let the holder of the master key in, and a service to what it is there for."""
    if _same(api_key, os.environ["LITELLM_MASTER_KEY"]):
        return UserAPIKeyAuth(api_key="master-key", user_id="admin", user_role=LitellmUserRoles.PROXY_ADMIN)
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and value and _same(api_key, value):
            what, _, client = name.removeprefix(PREFIX).partition("_")
            if _below(request.url.path, PATHS[what]):
                client = client.lower()
                return UserAPIKeyAuth(api_key=client, user_id=client, user_role=LitellmUserRoles.INTERNAL_USER)
    message = "Authentication Error: the key is missing, wrong, or not for this"
    raise ProxyException(message=message, type="auth_error", param="key", code=401)


def _same(given: str, expected: str) -> bool:
    return secrets.compare_digest((given or "").encode(), expected.encode())


def _below(path: str, allowed: tuple[str, ...]) -> bool:
    return any(path == known or path.startswith(known + "/") for known in allowed)
