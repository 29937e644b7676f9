"""``lab.lock.yaml``: what the models' own files say, kept so that plans and budgets are exact and need no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from labctl.diagnostics import Diagnostic, DocPath, LabctlError, Severity
from labctl.emit import yaml as emit
from labctl.model.artefacts import Model
from labctl.resolve.models import FileFacts, Known
from labctl.values import dataclass
from labctl.vram.facts import GgufFacts, HfFacts
from labctl.vram.metadata.codec import facts_from_json, facts_to_json, slim
from labctl.vram.metadata.errors import MetadataError

NAME: Final = "lab.lock.yaml"
VERSION: Final = 1
HEADER: Final = "made by `labctl lock`: commit it beside lab.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A model's entry: it counts for this source only."""

    source: str
    known: Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The whole file."""

    models: Mapping[str, Locked] = field(default_factory=dict)

    def valid(self, models: Mapping[str, Model]) -> dict[str, Known]:
        """Return what is locked for models as they are now."""
        return {
            n: self.models[n].known for n, m in models.items() if n in self.models and self.models[n].source == key(m)
        }

    def stale(self, models: Mapping[str, Model]) -> Iterator[Diagnostic]:
        """Yield a warning for each entry that was made for another source."""
        for name, model in models.items():
            if name in self.models and self.models[name].source != key(model):
                path: DocPath = ("models", name)
                yield Diagnostic(
                    code="LAB144",
                    severity=Severity.WARNING,
                    summary=f"`{NAME}` has `{name}` from another source: its facts are not used",
                    path=path,
                    hint="run `labctl lock`",
                )


def key(model: Model) -> str:
    """Return what an entry is about: every source of the model, with its revision."""
    return " ".join(s for s in (model.source, model.projector, model.revision and f"@{model.revision}") if s)


def read_lock(folder: Path) -> Lock:
    """Read the lock file of a lab's folder; an empty one when there is none. LabctlError when it is damaged."""
    path = folder / NAME
    try:
        value = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        _check_version(value["version"])
        return Lock(models={name: _entry(entry) for name, entry in value["models"].items()})
    except FileNotFoundError:
        return Lock()
    except _DAMAGE as error:
        problem = Diagnostic(
            code="LAB145",
            summary=f"`{path}` cannot be read: {_words(error)}",
            hint="make it anew with `labctl lock`",
        )
        raise LabctlError([problem]) from error


_DAMAGE: Final = (OSError, ValueError, YAMLError, MetadataError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a file can end in that labctl did not write, or not whole."""


def _words(error: Exception) -> str:
    """Return what is wrong with the file, in one line."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, (ValueError, MetadataError)) and not isinstance(error, UnicodeDecodeError):
        return str(error)
    return "it is not what `labctl lock` writes"


def _check_version(version: object) -> None:
    if version != VERSION:
        message = f"it has the form of version {version}, and this labctl reads version {VERSION}"
        raise ValueError(message)


def _entry(value: Mapping[str, Any]) -> Locked:
    facts = facts_from_json(value["facts"]) if "facts" in value else None
    projector = facts_from_json(value["projector"]) if "projector" in value else None
    known = Known(
        gguf=facts if isinstance(facts, GgufFacts) else None,
        hf=facts if isinstance(facts, HfFacts) else None,
        projector=projector if isinstance(projector, GgufFacts) else None,
        files={s: FileFacts(f.get("size"), f.get("sha256")) for s, f in value.get("files", {}).items()},
    )
    return Locked(source=value["source"], known=known)


def write_lock(folder: Path, lock: Lock) -> None:
    """Write the lock file atomically; models in the order of their names."""
    models = {name: _value(lock.models[name]) for name in sorted(lock.models)}
    text = emit.dump({"version": VERSION, "models": models}, header=HEADER)
    temporary = folder / f".{NAME}.labctl"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / NAME)


def _value(locked: Locked) -> dict[str, Any]:
    known = locked.known
    facts = known.gguf or known.hf
    files = {s: {k: v for k, v in (("size", f.size), ("sha256", f.sha256)) if v} for s, f in known.files.items()}
    value: dict[str, Any] = {"source": locked.source}
    value |= {"files": files} if files else {}
    value |= {"facts": facts_to_json(slim(facts) if isinstance(facts, GgufFacts) else facts)} if facts else {}
    return value | ({"projector": facts_to_json(slim(known.projector))} if known.projector else {})
