"""Carrying out one host's part of a plan: a list of steps, in an order that survives being killed anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from typing import Final

from labctl.artefact import Tree
from labctl.diagnostics import Diagnostic
from labctl.hosts import activate, content
from labctl.hosts.base import Emit, HostError, LostError, Outcome, Site, Stopped
from labctl.hosts.disk import unless_full
from labctl.hosts.events import HostStarted, Phase
from labctl.hosts.generations import Kept, drop_all, keep
from labctl.hosts.observe import Managers
from labctl.hosts.place import DirectPlacer, Placer, close_staging
from labctl.hosts.pulling import pull_images
from labctl.hosts.state import OWN, audit, read_manifest
from labctl.hosts.work import Work
from labctl.plan.model import Change, Kind
from labctl.plan.observed import SecretDigests
from labctl.secrets import Secrets
from labctl.values import dataclass

Step = Callable[[Work], None]


def _retire(work: Work) -> None:
    activate.remove_units(work)
    activate.close_projects(work)


def _prune(work: Work) -> None:
    """Take away what is no longer wanted; not where a unit failed: the way back needs no image or model anew."""
    activate.remove_again(work)
    if not work.destroy and any(c.address in work.failed or c.name in work.broken for c in work.todo(Kind.UNIT)):
        return
    content.prune(work)
    for name in sorted(work.retired):
        work.managers[name].settle()


def _verify(work: Work) -> None:
    if work.destroy:
        activate.nothing_left(work)


STEPS: Final[Sequence[tuple[Step, Phase | None]]] = (
    (content.announce_all, None),  # first: whatever happens from here on, the manifest knows of it
    (pull_images, Phase.FETCHING),  # all of them, or nothing else is done
    (content.fetch_models, Phase.FETCHING),  # slow and harmless: nothing that runs is touched yet
    (content.place_files, Phase.WRITING),  # checked on the host before the first is replaced: if refused, none is
    (content.build_images, None),  # after files: they are the build context
    (activate.validate, None),  # of those that read files only where they belong; before anything is stopped
    (_retire, None),  # before anything starts: it may hold ports and memory
    (activate.run_units, Phase.STARTING),
    (activate.adopt_units, None),
    (_prune, Phase.REMOVING),  # after that: a unit that runs never loses its files
    (_verify, None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteExecutor:
    """``Executor`` over a shell and the host's managers."""

    site: Site
    managers: Managers
    secrets: Secrets
    digests: SecretDigests
    lab: str = ""
    lab_digest: str = ""
    plan_digest: str = ""
    destroy: bool = False
    data: bool = False
    placer: Placer | None = None
    """None: files are written through the shell."""
    kept: Kept | None = None
    generation: int = 0
    """The generation that the host is to become again; 0: a new one."""
    whole: bool = True
    """The changes are all that there is to do on this host: afterwards it is what the lab says."""
    doing: str = "apply"
    """What an apply is called in the host's log."""
    check: Callable[[], None] = field(default=lambda: None)

    def execute(self, changes: Sequence[Change], tree: Tree, emit: Emit) -> Outcome:
        """Do the changes. The host's lock is held by the caller."""
        part = Tree(roots=tree.of_host(self.site.host).roots) if self.destroy else tree.of_host(self.site.host)
        work = Work(
            site=self.site,
            managers=self.managers,
            changes=changes,
            tree=part,
            secrets=self.secrets,
            digests=self.digests,
            manifest=read_manifest(self.site),
            placer=self.placer or DirectPlacer(self.site),
            kept=self.kept,
            emit=emit,
            check=self.check,
            destroy=self.destroy,
            data=self.data,
        )
        emit(HostStarted(host=self.site.host, changes=len([c for c in changes if c.action.changes])))
        outcome = self._steps(work)
        self._close(work, outcome)
        return outcome

    def _steps(self, work: Work) -> Outcome:
        try:
            for step, phase in STEPS:
                if phase is not None:
                    work.phase(phase)
                step(work)
        except Stopped:
            return work.outcome(interrupted=True)
        except HostError as error:
            return work.outcome(interrupted=False, diagnostics=[error.diagnostic])
        except OSError as error:
            return work.outcome(interrupted=False, diagnostics=[_unexpected(self.site, error)])
        return work.outcome(interrupted=False)

    def _close(self, work: Work, outcome: Outcome) -> None:
        """Write the last manifest and the audit line, or remove both after a complete destroy."""
        result = "done" if outcome.ok else "interrupted" if outcome.interrupted else "failed"
        entry = {
            "action": "destroy" if self.destroy else "rollback" if self.generation else self.doing,
            "lab": self.lab,
            "plan": self.plan_digest,
            "result": result,
            "done": len(outcome.done),
            "failed": sorted(outcome.failed),
        }
        if self.destroy and self.whole and outcome.ok and not work.manifest.entries:
            self._vanish(work)
        else:
            if outcome.ok and self.whole and not self.destroy:
                self._keep(work)
            with contextlib.suppress(LostError):
                audit(self.site, entry)
        work.emit(outcome.last_event)

    def _keep(self, work: Work) -> None:
        """Keep what the host is now as a generation, unless it is one already."""
        number = self.generation or work.initial.generation
        if not self.generation and (work.done or not number):
            tree, digests = work.tree, self.digests
            number = keep(self.site, tree, digests, lab=self.lab, lab_digest=self.lab_digest)
        work.save(replace(work.manifest, lab=self.lab, lab_digest=self.lab_digest, generation=number))

    def _vanish(self, work: Work) -> None:
        """Remove labctl's own files and folders; the lock goes last, by its holder."""
        shell = self.site.shell
        shell.remove(self.site.state(name) for name in OWN)
        drop_all(self.site)
        close_staging(self.site)
        for folder in sorted({*work.manifest.folders, self.site.state("").rstrip("/")}, reverse=True):
            shell.remove_empty(folder)


def _unexpected(site: Site, error: OSError) -> Diagnostic:
    refused = Diagnostic(
        code="LAB107",
        summary=f"`{site.host}` refused a change: {error.strerror or error}",
        detail=str(error.filename or ""),
    )
    return unless_full(site.host, error, refused)
