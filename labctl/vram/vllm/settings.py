"""What decides about a vLLM server's memory, apart from the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from labctl.values import dataclass

GIB = 1024**3
MIB = 1024**2


class Quantisation(StrEnum):
    """``--quantization``; ``NONE`` leaves it to the model's own ``quantization_config``."""

    NONE = "none"
    FP8 = "fp8"
    AWQ = "awq"
    GPTQ = "gptq"
    BITSANDBYTES = "bitsandbytes"
    MXFP4 = "mxfp4"


class Runner(StrEnum):
    """``--runner``."""

    GENERATE = "generate"
    POOLING = "pooling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One vLLM server. Sizes are bytes and per GPU.

    Attributes:
        max_model_len: tokens of one sequence; 0 takes the model's own maximum.
        max_num_seqs: sequences in one batch; 0 takes vLLM's default for the card.
        max_num_batched_tokens: tokens in one batch; 0 takes vLLM's default for the card.
        dtype: ``auto``, ``half``, ``float16``, ``bfloat16`` or ``float32``.
        quantization: of weights, when the model's files do not say.
        kv_cache_dtype: ``auto`` or a name that vLLM knows; those that begin with ``fp8`` take one byte a value.
        tensor_parallel: GPUs that share the model.
        eager: ``--enforce-eager``: no CUDA graphs.
        runner: a pooling server (embeddings) has no sampler.
        limit_mm: items per prompt by modality (``--limit-mm-per-prompt``); one left out is allowed; image and
            video both 0 switch the encoder's profile off.
        mm_item_tokens: tokens of the largest image or clip; 0 takes the model family's default.
        gpu_total_bytes: what the device reports as its total, not the figure on the box.
        budget_bytes: what the server may take; None asks for the least that holds ``kv_sequences``.
        kv_sequences: sequences of full length that the KV cache must hold when there is no budget.
        version: vLLM's version, e.g. ``0.33.0``.
    """

    max_model_len: int = 0
    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    dtype: str = "auto"
    quantization: Quantisation = Quantisation.NONE
    kv_cache_dtype: str = "auto"
    tensor_parallel: int = 1
    eager: bool = False
    runner: Runner = Runner.GENERATE
    limit_mm: Mapping[str, int] = field(default_factory=dict)
    mm_item_tokens: int = 0
    gpu_total_bytes: int = 0
    budget_bytes: int | None = None
    kv_sequences: int = 1
    version: str = "0.33.0"

    @property
    def release(self) -> tuple[int, ...]:
        """Major and minor version; empty when ``version`` is none, which counts as older than any."""
        return tuple(int(part) for part in self.version.lstrip("v").split(".")[:2] if part.isdecimal())

    @property
    def large_card(self) -> bool:
        """Whether vLLM takes its larger defaults (vLLM 0.33 ``arg_utils.py``, ``get_batch_defaults``)."""
        return self.gpu_total_bytes >= 70 * GIB

    @property
    def sequences(self) -> int:
        """``max_num_seqs`` or its default: 1024 from 70 GiB on, else 256."""
        return self.max_num_seqs or (1024 if self.large_card else 256)

    def batched_tokens(self, model_len: int) -> int:
        """``max_num_batched_tokens`` or its default: 8192 from 70 GiB on, else 2048; at most all sequences at once."""
        default = 16384 if self.gpu_total_bytes >= 160 * GIB else 8192 if self.large_card else 2048
        return min(self.max_num_batched_tokens or default, self.sequences * model_len)
