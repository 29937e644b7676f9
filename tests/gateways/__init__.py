"""Tests of the gateways. LiteLLM must be told before its first import not to download its price list."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_TELEMETRY"] = "False"
