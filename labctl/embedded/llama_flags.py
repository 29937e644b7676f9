"""llama-server's command line, read into settings of llama.cpp's parameter struct. Pure: works without xllamacpp.

Flags and meanings: llama.cpp b11549 ``common/arg.cpp`` and ``tools/server/README.md``; attribute paths:
``CommonParams`` of xllamacpp 2026.10.11549.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from labctl.values import dataclass

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A member of one of xllamacpp's enumerations, by name."""

    enum: str
    name: str


class FlagError(ValueError):
    """The command line is not one that llama-server and this program both understand."""


def read_flags(arguments: Sequence[str]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Return settings by attribute path (``model.path``, ``n_ctx``) and the API key files to read.

    Only what the command line names is returned; everything else keeps llama.cpp's own default.

    Raises:
        FlagError: a flag is unknown, lacks its value or has a value of the wrong kind, or no model is named.
    """
    given = dict(vars(_parser().parse_args(arguments)))
    if not given.get("model.path"):
        message = "no model: name one with -m FILE"
        raise FlagError(message)
    key_files = given.pop("api_key_file", [])
    return _combined(given), key_files


def _combined(given: dict[str, Any]) -> dict[str, Any]:
    """Turn flags that act together, or on more than one setting, into settings."""
    settings = dict(given)
    if settings.pop("rerank", False):
        settings |= {"embedding": True, "pooling_type": Member("llama_pooling_type", "LLAMA_POOLING_TYPE_RANK")}
    if (seconds := settings.pop("timeout", None)) is not None:
        settings |= {"timeout_read": seconds, "timeout_write": seconds}
    mapped, locked = settings.pop("no_mmap", None), settings.pop("mlock", False)
    if mapped is not None or locked:
        settings.setdefault("load_mode", _load_mode(mapped=mapped is None or mapped, locked=locked))
    if settings.get("n_parallel", 0) < 0:
        settings |= {"n_parallel": 4, "kv_unified": True}
    return settings


def _load_mode(*, mapped: bool, locked: bool) -> Member:
    name = {(True, True): "MMAP_MLOCK", (True, False): "MMAP", (False, True): "MLOCK", (False, False): "NONE"}
    return Member("llama_load_mode", f"LLAMA_LOAD_MODE_{name[mapped, locked]}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise FlagError(message)


def _member(enum: str, names: Mapping[str, str], text: str) -> Member:
    if text not in names:
        message = f"`{text}` is not one of {', '.join(names)}"
        raise argparse.ArgumentTypeError(message)
    return Member(enum, names[text])


def _choice(enum: str, prefix: str, *names: str, **special: str) -> Callable[[str], Member]:
    known = {name: f"{prefix}{name.upper()}" for name in names}
    return partial(_member, enum, known | {key: f"{prefix}{value}" for key, value in special.items()})


def _switch(text: str) -> bool:
    if text not in _ON | _OFF:
        message = f"`{text}` is not on or off"
        raise argparse.ArgumentTypeError(message)
    return text in _ON


_ON: Final = {"on", "true", "enabled", "1"}
_OFF: Final = {"off", "false", "disabled", "0"}


def _layers(text: str) -> int:
    return {"auto": -1, "all": -2}[text] if text in {"auto", "all"} else int(text)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[float]:
    return [float(word) for word in _words(text.replace("/", ","))]


def _experts_on_cpu(text: str) -> str:
    return ",".join(rf"blk\.{layer}\.ffn_(up|down|gate)_(ch|)exps=CPU" for layer in range(int(text)))


def _fit_target(text: str) -> list[int]:
    return [int(word) * MIB for word in _words(text)]


_CACHE_TYPE = _choice("ggml_type", "GGML_TYPE_", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_FLASH = _choice("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_", "auto", on="ENABLED", off="DISABLED")
_POOLING = _choice("llama_pooling_type", "LLAMA_POOLING_TYPE_", "none", "mean", "cls", "last", "rank")
_LOAD = _choice(
    "llama_load_mode",
    "LLAMA_LOAD_MODE_",
    "auto",
    "none",
    "mmap",
    "mlock",
    dio="DIRECT_IO",
    **{"mmap+mlock": "MMAP_MLOCK"},
)
_SPLIT = _choice("llama_split_mode", "LLAMA_SPLIT_MODE_", "none", "layer", "row", "tensor")
_REASONING = _choice(
    "common_reasoning_format",
    "COMMON_REASONING_FORMAT_",
    "none",
    "auto",
    "deepseek",
    **{"deepseek-legacy": "DEEPSEEK_LEGACY"},
)
_NUMA = _choice("ggml_numa_strategy", "GGML_NUMA_STRATEGY_", "distribute", "isolate", "numactl")

_VALUES: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "-m --model": ("model.path", str),
    "-mm --mmproj": ("mmproj.path", str),
    "--host": ("hostnames", lambda text: [text]),
    "--port": ("port", int),
    "-a --alias": ("model_alias", lambda text: set(_words(text))),
    "-c --ctx-size": ("n_ctx", int),
    "-np --parallel": ("n_parallel", int),
    "-b --batch-size": ("n_batch", int),
    "-ub --ubatch-size": ("n_ubatch", int),
    "-n --predict --n-predict": ("n_predict", int),
    "-ngl --gpu-layers --n-gpu-layers": ("n_gpu_layers", _layers),
    "-fa --flash-attn": ("flash_attn_type", _FLASH),
    "-ctk --cache-type-k": ("cache_type_k", _CACHE_TYPE),
    "-ctv --cache-type-v": ("cache_type_v", _CACHE_TYPE),
    "-lm --load-mode": ("load_mode", _LOAD),
    "-sm --split-mode": ("split_mode", _SPLIT),
    "-mg --main-gpu": ("main_gpu", int),
    "-ts --tensor-split": ("tensor_split", _numbers),
    "-fit --fit": ("fit_params", _switch),
    "-fitt --fit-target": ("fit_params_target", _fit_target),
    "-fitc --fit-ctx": ("fit_params_min_ctx", int),
    "-t --threads": ("cpuparams.n_threads", int),
    "-tb --threads-batch": ("cpuparams_batch.n_threads", int),
    "--threads-http": ("n_threads_http", int),
    "-ot --override-tensor": ("tensor_buft_overrides", str),
    "-ncmoe --n-cpu-moe": ("tensor_buft_overrides", _experts_on_cpu),
    "--numa": ("numa", _NUMA),
    "--pooling": ("pooling_type", _POOLING),
    "--embd-normalize": ("embd_normalize", int),
    "--chat-template": ("chat_template", str),
    "--reasoning-format": ("reasoning_format", _REASONING),
    "--image-min-tokens": ("image_min_tokens", int),
    "--image-max-tokens": ("image_max_tokens", int),
    "--cache-reuse": ("n_cache_reuse", int),
    "-cram --cache-ram": ("cache_ram_mib", int),
    "-sps --slot-prompt-similarity": ("slot_prompt_similarity", float),
    "--slot-save-path": ("slot_save_path", str),
    "--api-prefix": ("api_prefix", str),
    "-to --timeout": ("timeout", int),
    "--sleep-idle-seconds": ("sleep_idle_seconds", int),
    "-lv --verbosity --log-verbosity": ("verbosity", int),
}
_SWITCHES: Final[Mapping[str, tuple[str, bool]]] = {
    "--embedding --embeddings": ("embedding", True),
    "--rerank --reranking": ("rerank", True),
    "--jinja": ("use_jinja", True),
    "--no-jinja": ("use_jinja", False),
    "--metrics": ("endpoint_metrics", True),
    "--props": ("endpoint_props", True),
    "--slots": ("endpoint_slots", True),
    "--no-slots": ("endpoint_slots", False),
    "-kvu --kv-unified": ("kv_unified", True),
    "-no-kvu --no-kv-unified": ("kv_unified", False),
    "--mmap": ("no_mmap", True),
    "--no-mmap": ("no_mmap", False),
    "--mlock": ("mlock", True),
    "-cb --cont-batching": ("cont_batching", True),
    "-nocb --no-cont-batching": ("cont_batching", False),
    "-kvo --kv-offload": ("no_kv_offload", False),
    "-nkvo --no-kv-offload": ("no_kv_offload", True),
    "--no-mmproj": ("no_mmproj", True),
    "--no-mmproj-offload": ("mmproj_use_gpu", False),
    "--context-shift": ("ctx_shift", True),
    "--no-context-shift": ("ctx_shift", False),
    "--cache-prompt": ("cache_prompt", True),
    "--no-cache-prompt": ("cache_prompt", False),
    "--swa-full": ("swa_full", True),
    "--warmup": ("warmup", True),
    "--no-warmup": ("warmup", False),
    "--webui --ui": ("ui", True),
    "--no-webui --no-ui": ("ui", False),
    "--offline": ("offline", True),
    "--check-tensors": ("check_tensors", True),
    "--reuse-port": ("reuse_port", True),
}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m labctl.embedded.llama_server",
        description="llama.cpp's own HTTP server, with llama-server's command line.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for flags, (path, kind) in _VALUES.items():
        parser.add_argument(*flags.split(), dest=path, type=kind, metavar="VALUE", help=f"sets {path}")
    for flags, (path, value) in _SWITCHES.items():
        parser.add_argument(*flags.split(), dest=path, action="store_const", const=value, help=f"sets {path}")
    parser.add_argument("--api-key", dest="api_keys", type=_words, metavar="KEYS", help="keys, separated by commas")
    parser.add_argument("--api-key-file", action="append", metavar="FILE", help="one key per line, # for comments")
    return parser
