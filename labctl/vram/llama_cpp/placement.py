"""Which weights lie where, and how many bytes that is on each device.

Source: llama.cpp b11549, ``src/llama-model.cpp`` (``load_tensors``: split points, ``get_layer_buft_list``),
``src/llama-model-loader.cpp`` (``create_tensor``), ``src/llama-arch.cpp`` (which tensors are input or output tensors).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection
from functools import cached_property
from itertools import accumulate
from struct import pack, unpack

from labctl.values import dataclass
from labctl.vram.llama_cpp.builds import Rules
from labctl.vram.llama_cpp.model import Model, Weight
from labctl.vram.llama_cpp.settings import Settings

_INPUT = ("token_embd.", "token_types.", "position_embd.", "per_layer_token_embd.")
"""Tensors that always stay on the host (``LLM_TENSOR_LAYER_INPUT``)."""
_EXPERTS = re.compile(r"ffn_(up|down|gate|gate_up)_(ch|)exps")
_ROPE = re.compile(r"rope_(freqs|factors_(long|short))")


@dataclass(frozen=True)
class Placement:
    """Where each layer and tensor of a model lies. Device ``gpus`` is the host."""

    model: Model
    settings: Settings
    rules: Rules

    @cached_property
    def gpus(self) -> int:
        """Number of GPUs in use."""
        if self.settings.backend == "cpu":
            return 0
        return 1 if self.settings.split_mode == "none" else self.settings.devices

    @cached_property
    def _split_points(self) -> list[float]:
        shares = [float(s) for s in self.settings.tensor_split] or [float(b) for b in self.settings.free_memory]
        shares = (shares + [0.0] * self.gpus)[: self.gpus]
        if not any(shares):
            shares = [1.0] * self.gpus
        points = list(accumulate(shares, lambda a, b: _f32(a + b)))
        return [_f32(p / points[-1]) for p in points]

    def layer(self, il: int) -> int:
        """Device of block ``il``; the output layer is block ``all_layers``."""
        return self._layers[il]

    @cached_property
    def _layers(self) -> list[int]:
        return [self._layer(il) for il in range(self.model.all_layers + 1)]

    def _layer(self, il: int) -> int:
        total = self.model.all_layers + 1
        first = max((total if self.rules.output_counts else total - 1) - self.settings.gpu_layers, 0)
        active = min(self.settings.gpu_layers, total)
        if not self.gpus or il < first or il - first >= active:
            return self.gpus
        if self.by_rows:
            return 0
        return min(bisect_right(self._split_points, _f32((il - first) / active)), self.gpus - 1)

    @property
    def full(self) -> bool:
        """Whether every layer, the output layer included, is on a GPU."""
        return self.gpus > 0 and self.settings.gpu_layers > self.model.all_layers

    @cached_property
    def output(self) -> int:
        """Device of the output layer."""
        return self.layer(self.model.all_layers)

    def homes(self, weight: Weight) -> Collection[int]:
        """Devices that hold a copy of a tensor."""
        name = weight.tensor.name
        if weight.block is not None:
            return (self.block_tensor(weight.block, weight.suffix),)
        if _ROPE.match(name):
            return {self.layer(il) for il in range(self.model.all_layers)}
        if name.startswith(_INPUT):
            return {self.gpus, self.output} if name == self.model.output_name else (self.gpus,)
        if name.startswith(("per_layer_model_proj.", "per_layer_proj_norm.")):
            return (self.layer(0),)
        if name.startswith("token_embd_norm."):
            return (self.output if self.model.arch in {"lfm2", "lfm2moe"} else self.layer(0),)
        return (self.output,)

    def block_tensor(self, il: int, suffix: str) -> int:
        """Device of tensor ``suffix`` of block ``il``."""
        if il < self.settings.cpu_moe_layers and _EXPERTS.search(suffix):
            return self.gpus
        return self.gpus if suffix == "ssm_a" and self._slow_scan else self.layer(il)

    @cached_property
    def _slow_scan(self) -> bool:
        """Whether CUDA has no kernel for this Mamba-1 scan, so that its decay stays on the host."""
        model = self.model
        first = model.number("ssm.group_count", 0) == 0 or model.arch in {"mamba", "jamba"}
        usual = model.number("ssm.state_size", 16) == 16 and model.number("ssm.inner_size", 0) % 128 == 0
        return first and not usual

    @cached_property
    def weights(self) -> list[int]:
        """Bytes of weights on each GPU, then on the host."""
        sums = [0] * (self.gpus + 1)
        for weight in self.model.weights:
            for device in self.homes(weight):
                if device == self.gpus:
                    sums[device] += weight.host_bytes
                elif self.by_rows and len(weight.tensor.shape) > 1:
                    for gpu, share in enumerate(self._row_shares):
                        sums[gpu] += int(weight.gpu_bytes * share)
                else:
                    sums[device] += weight.gpu_bytes
        return sums

    @property
    def by_rows(self) -> bool:
        """Whether matrices are split by rows over the GPUs; the first one then runs everything else."""
        return self.settings.split_mode == "row" and self.gpus > 1

    @cached_property
    def _row_shares(self) -> list[float]:
        return [b - a for a, b in zip([0.0, *self._split_points], self._split_points, strict=False)]


def _f32(value: float) -> float:
    """Round to single precision, in which llama.cpp computes the split."""
    result: float = unpack("f", pack("f", value))[0]
    return result
