"""Whether the options of a deployment suit its cards and its build: KV cache, flash-attention, number formats."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.compat.builds import attention_rules, flash_rules, format_rules, kv_rule, setting_rules
from labctl.compat.capability import parse, version, within
from labctl.compat.rules import FormatRule, KvRule
from labctl.compat.values import Ask, Build, GpuFacts, Problem

_FLOATS = frozenset({"auto", "f16", "bf16", "f32", "float16", "bfloat16"})


def settings(ask: Ask) -> dict[str, str]:
    """Return the options that the cards demand and the lab left out."""
    given = {"dtype": ask.dtype, "attention_backend": ask.attention_backend}
    demanded: dict[str, str] = {}
    for rule in setting_rules():
        if rule.engine == ask.engine and any(within(g, rule.min_capability, rule.max_capability) for g in ask.gpus):
            demanded |= {k: v for k, v in rule.set.items() if given.get(k) in {None, "auto"}}
    return demanded


def settings_notes(ask: Ask) -> Iterator[str]:
    """Yield why the demanded options are demanded."""
    demanded = settings(ask)
    for rule in setting_rules():
        cards = [g for g in ask.gpus if within(g, rule.min_capability, rule.max_capability)]
        used = {k: v for k, v in rule.set.items() if demanded.get(k) == v}
        if rule.engine == ask.engine and cards and used:
            chosen = ", ".join(f"`{k}: {v}`" for k, v in used.items())
            yield f"{chosen} for `{cards[0].name}`: {rule.why}"


def problems(build: Build, ask: Ask) -> Iterator[Problem]:
    """Yield every problem of the options."""
    yield from (p for p in (kv_cache(build, ask), flash_attention(build, ask), attention(ask)) if p)
    yield from formats(ask)


def kv_cache(build: Build, ask: Ask) -> Problem | None:
    """Check that there are attention kernels for the types of K and V (LAB073)."""
    rule, (k, v) = kv_rule(build.kv), ask.kv_cache
    if "*" not in rule.pairs and not _known_pair(rule, ask) and not _harmless(rule, ask):
        return Problem(
            code="LAB073",
            key="kv_cache",
            summary=f"`{build.artefact}` has no attention kernel for a KV cache of `{k}` and `{v}`",
            detail=f"it has {', '.join(p.replace('-', '/') for p in rule.pairs)} (K/V)",
            hint=_kv_hint(rule, k, v),
        )
    if rule.quantised_v_needs_flash_attention and v not in _FLOATS and ask.flash_attention == "off":
        return Problem(
            code="LAB073",
            key="kv_cache",
            summary=f"a quantised V cache (`{v}`) needs flash-attention, which is switched off",
            hint="set `flash_attention: on` or `auto`, or `kv_cache: f16`",
        )
    return _kv_card(rule, ask)


def flash_attention(build: Build, ask: Ask) -> Problem | None:
    """Check that flash-attention, where it is forced on or needed, exists for the card and the build (LAB074)."""
    needed = ask.flash_attention == "on" or (ask.flash_attention == "auto" and _needs_flash(build, ask))
    rules = [r for r in flash_rules() if r.engine == build.engine and r.accelerator == build.accelerator]
    if not needed or not rules:
        return None
    release = (ask.build.version if ask.build else None) or ask.version or build.version
    for gpu in ask.gpus or (None,):
        suit = [r for r in rules if gpu is None or not r.min_capability or _reaches(gpu, r.min_capability)]
        if not any(version(release) >= version(r.since) for r in suit):
            since = min((r.since for r in suit), key=version, default=None)
            return _no_flash(build.engine, release, gpu, since)
    return None


def formats(ask: Ask) -> Iterator[Problem]:
    """Yield the number formats that a card cannot compute with (LAB076)."""
    for option, value in (("dtype", ask.dtype), ("quantization", ask.quantization)):
        rule = _format(ask.engine, option, value)
        bad = next((g for g in ask.gpus if rule and not _computes(rule, g)), None)
        if rule and bad:
            yield Problem(
                code="LAB076",
                key=option,
                summary=f"`{bad.name}` ({bad.code}) cannot run `{option}: {value}` with {ask.engine}",
                detail=_needs(rule),
                hint=_instead(rule, ask, bad),
            )


def format_notes(ask: Ask) -> Iterator[str]:
    """Yield where a quantisation saves memory and no time."""
    rule = _format(ask.engine, "quantization", ask.quantization)
    for gpu in ask.gpus if rule and rule.native_capability else ():
        if rule and rule.native_capability and _computes(rule, gpu) and not _reaches(gpu, rule.native_capability):
            yield f"`{ask.quantization}` on `{gpu.name}`: {rule.weak}"
            return


def attention(ask: Ask) -> Problem | None:
    """Check that an explicit attention backend has code for the cards (LAB074)."""
    rule = next((r for r in attention_rules() if r.backend == ask.attention_backend), None)
    bad = next(
        (g for g in ask.gpus if rule and g.capability and not within(g, rule.min_capability, rule.max_capability)), None
    )
    if not rule or not bad or ask.engine != "vllm":
        return None
    fits = [r.backend for r in attention_rules() if within(bad, r.min_capability, r.max_capability)]
    better = settings(_without_backend(ask)).get("attention_backend") or next(iter(fits), None)
    return Problem(
        code="LAB074",
        key="attention_backend",
        summary=f"the attention backend `{rule.backend}` has no code for `{bad.name}` ({bad.code})",
        detail=f"it has code for {rule.min_capability} to {rule.max_capability}",
        hint=f"set `attention_backend: {better}`" if better else "leave `attention_backend` out",
    )


def _without_backend(ask: Ask) -> Ask:
    return Ask(engine=ask.engine, gpus=ask.gpus)


def _known_pair(rule: KvRule, ask: Ask) -> bool:
    k, v = ask.kv_cache
    mixed = ask.build is not None and ask.build.all_kv_quants and k in rule.all_quants and v in rule.all_quants
    return f"{k}-{v}" in rule.pairs or mixed


def _harmless(rule: KvRule, ask: Ask) -> bool:
    """A quantised K alone needs no kernel of its own: without flash-attention the plain path takes it."""
    return rule.quantised_v_needs_flash_attention and ask.kv_cache[1] in _FLOATS and ask.flash_attention != "on"


def _kv_hint(rule: KvRule, k: str, v: str) -> str:
    near = [p for p in rule.pairs if p.split("-")[0] == k or p.split("-")[1] == v] or list(rule.pairs)
    best = near[0].split("-")
    value = best[0] if best[0] == best[1] else f"[{best[0]}, {best[1]}]"
    build = "; a build with GGML_CUDA_FA_ALL_QUANTS has the others" if {k, v} <= set(rule.all_quants) else ""
    return f"set `kv_cache: {value}`{build}"


def _kv_card(rule: KvRule, ask: Ask) -> Problem | None:
    for kind in dict.fromkeys(ask.kv_cache):
        lowest = rule.min_capability.get(kind)
        bad = next((g for g in ask.gpus if lowest and g.capability and not _reaches(g, lowest)), None)
        if bad:
            return Problem(
                code="LAB073",
                key="kv_cache",
                summary=f"a KV cache of `{kind}` needs compute capability {lowest}; `{bad.name}` has {bad.capability}",
                hint="leave `kv_cache` out",
            )
    return None


def _needs_flash(build: Build, ask: Ask) -> bool:
    return kv_rule(build.kv).quantised_v_needs_flash_attention and ask.kv_cache[1] not in _FLOATS


def _no_flash(engine: str, release: str, gpu: GpuFacts | None, since: str | None) -> Problem:
    where = f" on `{gpu.name}` ({gpu.code})" if gpu else ""
    return Problem(
        code="LAB074",
        key="flash_attention",
        summary=f"{engine} {release} has no flash-attention{where}",
        detail=f"it came with {since}" if since else "no release has it for this card",
        hint=f"use {since} or newer, or set `flash_attention: off` and `kv_cache: f16`"
        if since
        else "set `flash_attention: off` and `kv_cache: f16`",
    )


def _reaches(gpu: GpuFacts, lowest: str) -> bool:
    return gpu.capability is None or parse(gpu.capability) >= parse(lowest)


def _format(engine: str, option: str, value: str | None) -> FormatRule | None:
    same = (r for r in format_rules() if r.engine == engine and r.kind == option)
    return next((r for r in same if value in r.names), None)


def _computes(rule: FormatRule, gpu: GpuFacts) -> bool:
    if gpu.capability:
        return _reaches(gpu, rule.min_capability)
    return rule.amd and (not rule.gfx or gpu.gfx in rule.gfx)


def _needs(rule: FormatRule) -> str:
    amd = f"on AMD {', '.join(rule.gfx)}" if rule.gfx else "every AMD card" if rule.amd else "no AMD card"
    return f"it needs compute capability {rule.min_capability} or newer; {amd}"


def _instead(rule: FormatRule, ask: Ask, gpu: GpuFacts) -> str:
    if rule.instead:
        return f"set `{rule.kind}: {rule.instead}`"
    fits = [r.names[0] for r in format_rules() if r.engine == ask.engine and r.kind == rule.kind and _computes(r, gpu)]
    return (
        f"use a model in one of {', '.join(f'`{n}`' for n in fits)}, or unquantised"
        if fits
        else f"leave `{rule.kind}` out"
    )
