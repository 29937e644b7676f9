"""Whether a host's definitions are options of the chosen NixOS release, each with a value of its type.

What this shows is exactly that: the definitions agree with labctl's own table of options (``table``) and with
the assertions that it knows (``rules``). Whether the system builds only Nix can tell, with nixpkgs.

``check(definitions, release)`` takes the definitions of one host as nested mappings from the top (``{"services":
{"ollama": {"enable": True}}}``), those of several modules merged by ``merged``; values as ``emit.nix`` writes them. It
yields a ``Problem`` for each definition that the release would refuse:

========= =============================================================================================
kind      the definition
========= =============================================================================================
UNKNOWN   names no option of a module that the table has, or nearly the name of one; ``remedy`` says it
UNCHECKED is of a module that the table does not have, as ``services.jellyfin``: NixOS may know it
RELEASE   names an option of other releases only: removed, renamed, or still to come
TYPE      has a value of another type, or one that is not in the enumeration
MISSING   is not there and has to be, as the image of a container or ``system.stateVersion``
SECRET    would copy a secret into the store, where everybody reads it
CONFLICT  contradicts another one: two services on one port, docker beside podman's ``dockerCompat``
========= =============================================================================================

What labctl itself writes has none of them. UNCHECKED is no mistake where the lab's own options are concerned.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from labctl.targets.nixos.options import rules, table, types
from labctl.targets.nixos.options.problem import Kind, Problem
from labctl.targets.nixos.options.table import ITEM, NAME, Node, Option

__all__ = ["Kind", "Problem", "check", "merged"]


def check(definitions: Mapping[str, object], release: str, *, whole: bool = True) -> Iterator[Problem]:
    """Yield what NixOS ``release`` would refuse, as far as labctl's table and rules know, in the definitions' order.

    ``whole`` is false when another file, which only Nix reads, defines the machine's disks and how it boots.
    """
    yield from _inside(table.tree(), definitions, (), release)
    for option in table.always_required():
        if not rules.defined(definitions, option.path):
            yield _missing(option, option.path)
    yield from rules.check(definitions, release, whole=whole)


def merged(modules: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Return the definitions of several modules as one: sets attribute by attribute, lists one after another.

    A scalar that two modules define is the later one's; ``imports`` are left out.
    """
    whole: dict[str, object] = {}
    for module in modules:
        _merge(whole, {key: value for key, value in module.items() if key != "imports"})
    return whole


def _merge(whole: dict[str, object], more: Mapping[str, object]) -> None:
    for key, value in more.items():
        have = whole.get(key)
        if isinstance(value, Mapping):
            inner: dict[str, object] = dict(have) if isinstance(have, Mapping) else {}
            _merge(inner, value)
            whole[key] = inner
        elif isinstance(value, list | tuple) and isinstance(have, list | tuple):
            whole[key] = [*have, *value]
        else:
            whole[key] = value


def _inside(
    node: Node, value: Mapping[str, object], path: tuple[str, ...], release: str, *, free: bool = False
) -> Iterator[Problem]:
    """Yield the problems of the attributes of a set; ``free``: in one that takes whatever it has no option for."""
    free = free or _is_free(node)
    for name, inner in value.items():
        child = node.child(name)
        if child is not None:
            yield from _at(child, inner, (*path, name), release, free=free)
        elif node.option is None and not free:
            yield _unknown(node, (*path, name), release)
        elif node.option is None:
            continue
        elif node.option.type.name == "attrsOf":
            yield from _value(node.option.type.of[0], inner, (*path, name), node.option)
    for name, child in node.inside.items():
        needed = child.option
        if (
            needed
            and needed.required
            and name not in value
            and _counts(node, value, needed)
            and needed.exists_in(release)
        ):
            yield _missing(needed, (*path, name))


def _is_free(node: Node) -> bool:
    """Whether a set is an option with a ``freeformType``: what is below it and not known is free, at any depth."""
    wanted = node.option.type if node.option else None
    return wanted is not None and wanted.name == "attrsOf" and wanted.of[0].name == "free"


def _at(node: Node, value: object, path: tuple[str, ...], release: str, *, free: bool = False) -> Iterator[Problem]:
    """Yield the problems of one definition and of what is below it."""
    option = node.option
    if option is not None and not option.exists_in(release):
        yield _elsewhere(option, path, release)
        return
    for each in types.definitions(value):
        if isinstance(each, Mapping) and _is_set(node):
            yield from _inside(node, each, path, release, free=free)
        elif isinstance(each, list | tuple) and ITEM in node.inside:
            for number, item in enumerate(each):
                yield from _at(node.inside[ITEM], item, (*path, str(number)), release)
        elif option is None:
            yield from _no_option(node, each, path)
        else:
            yield from _value(option.type, each, path, option)


def _is_set(node: Node) -> bool:
    """Whether a set's attributes are looked at one by one: known ones, or all of one type."""
    known = bool(node.inside) and ITEM not in node.inside
    return known or (node.option is not None and node.option.type.name == "attrsOf")


def _value(wanted: types.OptionType, value: object, path: tuple[str, ...], option: Option) -> Iterator[Problem]:
    """Yield the problems of a value of an option; of a list, those of its items."""
    if wanted.name == "listOf" and isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _value(wanted.of[0], item, (*path, str(number)), option)
    elif not types.fits(wanted, value):
        yield _refused(wanted, path, option.remedy)


def _no_option(node: Node, value: object, path: tuple[str, ...]) -> Iterator[Problem]:
    """Yield the problem of a plain value where only options are."""
    if isinstance(value, Mapping | list | tuple | str | int | float | None):
        what = "a list of sets" if ITEM in node.inside else "a set"
        inside = ", ".join(f"`{name}`" for name in list(node.inside)[:3])
        yield Problem(
            Kind.TYPE, path, f"`{Problem.name(path)}` is {what} of options", f"Define options in it: {inside}"
        )


def _counts(node: Node, value: Mapping[str, object], option: Option) -> bool:
    """Whether a required option is: where the service is enabled, and in every item and container."""
    if "enable" in node.inside and not {NAME, ITEM} & set(option.path):
        return any(each is True for each in types.definitions(value.get("enable")))
    return bool({NAME, ITEM} & set(option.path))


def _unknown(node: Node, path: tuple[str, ...], release: str) -> Problem:
    """Return the problem of a name that the table does not have, with the nearest one that the release has."""
    known = [name for name, child in node.inside.items() if child.option is None or child.option.exists_in(release)]
    is_module = len(path) <= _MODULE
    near = difflib.get_close_matches(path[-1], known, 1, _TYPO if is_module else _ALIKE)
    message = f"labctl knows no option `{Problem.name(path)}` of NixOS {release}"
    if is_module and not near:
        return Problem(Kind.UNCHECKED, path, message, "See that the release has it: labctl cannot tell")
    remedy = f"Call it `{Problem.name((*path[:-1], near[0]))}`" if near else "Leave it out, or correct the name"
    return Problem(Kind.UNKNOWN, path, message, remedy)


_MODULE: Final = 2
"""Names down to a module's own options, ``services.jellyfin``: above, the table has only what labctl uses."""
_TYPO: Final = 0.8
_ALIKE: Final = 0.6
"""How near a name has to be to one of the table, by ``difflib``, 1 being the same."""


def _elsewhere(option: Option, path: tuple[str, ...], release: str) -> Problem:
    when = f"it came with {option.since}" if release < option.since else f"{option.until} was the last release with it"
    remedy = option.remedy or "Leave it out, or choose another release"
    return Problem(Kind.RELEASE, path, f"NixOS {release} has no option `{Problem.name(path)}`: {when}", remedy)


def _refused(wanted: types.OptionType, path: tuple[str, ...], remedy: str) -> Problem:
    """Return the problem of a value that is not of the type."""
    if wanted.name in {"never", "secretValue"}:
        kind = Kind.SECRET if wanted.name == "secretValue" else Kind.RELEASE
        return Problem(kind, path, f"`{Problem.name(path)}` must not be set", remedy)
    message = f"`{Problem.name(path)}` has to be {wanted}"
    if types.is_secret(wanted):
        return Problem(Kind.SECRET, path, message, "Name the file on the host, or the reference, as text")
    return Problem(Kind.TYPE, path, message, "Change the value")


def _missing(option: Option, path: tuple[str, ...]) -> Problem:
    return Problem(Kind.MISSING, path, f"`{Problem.name(path)}` is not set", f"Set it: {option.type}")
