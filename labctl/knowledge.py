"""Model facts without the network: labctl's own tiny models, then the lock file, then the built-in catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from labctl.model.artefacts import Model, Tiny
from labctl.resolve.models import Known, file_name

NOTHING = Known()


class OfflineKnowledge:
    """Answers from what ships with labctl and from ``lab.lock.yaml``; never from the network."""

    def __init__(self, locked: Mapping[str, Known] | None = None) -> None:
        self.locked = locked or {}

    def of(self, name: str, model: Model) -> Known:
        """Return what is known of a model; an empty ``Known`` when nothing is."""
        if model.tiny is not None:
            return tiny_model(model.tiny)
        return self.locked.get(name) or from_catalogue(model)


@cache
def tiny_model(tiny: Tiny) -> Known:
    """Return a tiny model: the file itself and its header's facts, exact."""
    from labctl.tiny import embedding, scripted  # noqa: PLC0415 - only labs with tiny models write one
    from labctl.vram.metadata.gguf import parse_gguf  # noqa: PLC0415

    content = scripted(tiny.says) if tiny.says else embedding(dimensions=tiny.dimensions or 64)
    facts = parse_gguf(lambda offset, length: content[offset : offset + length], len(content))
    return Known(gguf=facts, content=content)


def from_catalogue(model: Model) -> Known:
    """Return the catalogue's facts for a model's source, derived from its name."""
    from labctl.vram.metadata import catalogue  # noqa: PLC0415 - tables of their own

    file = file_name(model.gguf) if model.gguf else ""
    found = catalogue.lookup(model.facts or model.source, file=file)
    if found is None:
        return NOTHING
    projector = catalogue.lookup(model.projector, file=file_name(model.projector)) if model.projector else None
    return Known(
        gguf=found.gguf,
        hf=found.hf,
        projector=projector.gguf if projector else None,
        exact=found.exact,
    )
