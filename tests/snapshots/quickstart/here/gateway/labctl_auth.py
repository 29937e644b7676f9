"""Runs inside LiteLLM, beside its config.yaml: without a database, the master key is the one key there is.

LiteLLM's own check answers a wrong key with "400 No connected db" then; clients expect 401.
"""

import os
import secrets

from fastapi import Request
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth


async def check(request: Request, api_key: str) -> UserAPIKeyAuth:  # noqa: ARG001 - LiteLLM passes it by name
    """Let the holder of the master key in, and nobody else."""
    expected = os.environ["LITELLM_MASTER_KEY"]
    if not secrets.compare_digest((api_key or "").encode(), expected.encode()):
        message = "Authentication Error: the key is missing or wrong"
        raise ProxyException(message=message, type="auth_error", param="key", code=401)
    return UserAPIKeyAuth(api_key="master-key", user_id="admin", user_role=LitellmUserRoles.PROXY_ADMIN)
