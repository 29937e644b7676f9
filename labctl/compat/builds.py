"""The table of builds and the rules beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

from labctl.compat.rules import AttentionRule, FlashRule, FormatRule, KvRule, SettingRule, Toolkit
from labctl.compat.tables import row, rows, toml
from labctl.compat.values import Build
from labctl.workload import Probe

_FILE = "builds.toml"


@cache
def all_builds() -> tuple[Build, ...]:
    """Return every build, in order of preference."""
    return tuple(row(Build, _typed(values)) for values in toml(_FILE)["build"])


def of(engine: str) -> tuple[Build, ...]:
    """Return an engine's builds, in order of preference; empty for an engine that the table does not have."""
    return tuple(b for b in all_builds() if b.engine == engine)


def engines() -> tuple[str, ...]:
    """Return the model servers of the table, in its order."""
    return tuple(dict.fromkeys(b.engine for b in all_builds() if not b.gateway))


def of_image(image: str) -> Build | None:
    """Return the build that an image is, by its exact name or by the pattern of its tag; None when unknown.

    A digest after the tag does not matter. The build returned has the image's own name and release.
    """
    name = image.split("@", 1)[0]
    exact = (b for b in all_builds() if b.image == name)
    alike = (b for b in all_builds() if b.match and re.match(b.match, name))
    row = next(exact, None) or next(alike, None)
    release = re.search(r"b\d{4,}|\d+\.\d+(\.\d+)*", name.rpartition(":")[2])
    return row and replace(row, image=image, version=release[0] if release else row.version)


def at(build: Build, version: str) -> Build | None:
    """Return another release of a build, when the table says that it is made in the same way; else None."""
    number = version.removeprefix("v")
    if number == build.version:
        return build
    image = build.image.replace(build.version, number) if build.image else None
    alike = build.for_host or bool(image and build.match and re.match(build.match, image))
    return replace(build, version=number, image=image) if alike else None


@cache
def kv_rule(name: str) -> KvRule:
    """Return the rule for KV cache types of that name; KeyError when there is none."""
    return {r.name: r for r in rows(KvRule, _FILE, "kv")}[name]


@cache
def flash_rules() -> tuple[FlashRule, ...]:
    """Return the rules for flash-attention."""
    return rows(FlashRule, _FILE, "flash_attention")


@cache
def attention_rules() -> tuple[AttentionRule, ...]:
    """Return the ranges of vLLM's attention backends."""
    return rows(AttentionRule, _FILE, "attention")


@cache
def setting_rules() -> tuple[SettingRule, ...]:
    """Return the options that cards demand."""
    return rows(SettingRule, _FILE, "setting")


@cache
def format_rules() -> tuple[FormatRule, ...]:
    """Return the rules for number formats."""
    return rows(FormatRule, _FILE, "format")


@cache
def toolkits() -> tuple[Toolkit, ...]:
    """Return the ranges of the CUDA toolkits, newest first."""
    return rows(Toolkit, _FILE, "toolkit")


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "probe": Probe(values["probe"])}
