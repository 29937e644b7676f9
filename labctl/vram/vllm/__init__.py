"""vLLM's memory: weights, KV cache, activations, and what a budget in bytes becomes on its command line."""

from __future__ import annotations

from labctl.vram.vllm.activation import CONTEXT
from labctl.vram.vllm.budget import Budget, plan_budget
from labctl.vram.vllm.estimate import estimate
from labctl.vram.vllm.settings import Quantisation, Runner, Settings

__all__ = ["CONTEXT", "Budget", "Quantisation", "Runner", "Settings", "estimate", "plan_budget"]
