"""Target ``k3s``: a lab as Kubernetes objects, for k3s and for any other cluster that has the same classes.

All hosts of a cluster (``k3s.cluster``) are one root of the tree, named after the cluster; each host is a node, and
what runs on it is placed there by ``kubernetes.io/hostname``. What a workload becomes:

====================================  ==============================================================================
a workload                            a Deployment; a StatefulSet when it has volumes and no card; a DaemonSet when it
                                      looks at a node's cards; a Job when it is a task (its name has a hash)
its ports                             a Service with the workload's name: ``http://NAME:PORT`` in the whole lab
public ports                          an Ingress for ``NAME.DOMAIN``; without a domain, a port of the node
configuration files                   an immutable ConfigMap with a hash in its name
secret variables                      a Secret ``NAME-env``; keys only, values are written when it is applied
volumes                               claims ``VOLUME-HOST``
model files                           a Job per model and host, see ``storage``
whom it serves                        a NetworkPolicy, beside one that denies everything
cards                                 a number of ``nvidia.com/gpu`` or the like, requests = limits
start: on-demand, exclusive groups    ``replicas: 0``; the active member has 1
====================================  ==============================================================================

Units: one per Deployment, StatefulSet, DaemonSet and Job of a workload, ``id`` = ``Deployment/NAME`` (kind and name),
in the cluster's namespace; ``project`` is the object's path, ``fingerprint`` its digest.

==============  ====================================================================================================
``settings``    the cluster as its hosts' blocks declare it, and tables of names
``form``        quantities, names, labels; from a value to an ``Object``
``pod``         the pod of a workload: container, probes, security, volumes
``gpu``         how a pod gets cards
``storage``     volumes and model files
``objects``     what runs a workload and how it is reached
``cluster``     namespace, default policy, charts
``waves``       the order of it all
``node``        files of a node itself: k3s' configuration, the mirror of its images
``folder``      kustomizations, for ``kubectl apply -k``
``check``       what a cluster cannot be told, said before rendering
``lint``        what its API server would refuse of an object; ``references``: of several
==============  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from labctl.artefact import Cluster, File, HostRoot, Item, Manager, ModelFile, Object, Unit
from labctl.diagnostics import Diagnostic, DocPath, LabctlError
from labctl.placed import PlacedHost, Places
from labctl.targets import shared
from labctl.targets.k3s import cluster, folder, objects, storage
from labctl.targets.k3s import node as prepared
from labctl.targets.k3s.check import problems
from labctl.targets.k3s.pod import Run
from labctl.targets.k3s.references import all_faults
from labctl.targets.k3s.settings import CLUSTER, Settings, node, settings
from labctl.targets.k3s.waves import waves
from labctl.workload import Capability, Container, Start, Workload

MODELS: Final = "models"
"""The models folder of a host that declares none: a volume of the cluster, not a folder of the node."""


class K3s:
    """Objects for the API of a cluster."""

    name = "k3s"
    by_name = True
    accepts = frozenset(Capability) - {
        Capability.NATIVE,
        Capability.OWN_PYTHON,
        Capability.SWAP_LIMIT,
        Capability.CONTROL,
    }

    def network(self, host: PlacedHost) -> str | None:
        """Return the cluster's: names lead to workloads on every node."""
        return host.network

    def control(self, host: PlacedHost, name: str) -> None:  # noqa: ARG002 - the cluster restarts what stops by itself
        """Return nothing: no pod of a lab may touch another."""
        return

    def places(self, lab: str, options: Mapping[str, object], models: str | None) -> Places:
        """Return the folders of a node; a ``models`` folder that lab.yaml names is one of the node itself."""
        return Places(
            root="/",
            config=f"etc/labctl/{lab}",
            state=f"var/lib/labctl/{lab}",
            models=models or MODELS,
            site=str(options.get("cluster") or CLUSTER),
            pages=_pages(options),
        )

    def check(self, hosts: Sequence[PlacedHost], workloads: Sequence[Workload]) -> Iterable[Diagnostic]:
        """Return what the cluster cannot be told."""
        return problems(hosts, workloads)

    def render(
        self, host: PlacedHost, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[Item]:
        """Return a cluster of one host."""
        return self.render_site([host], workloads, models)

    def render_site(
        self, hosts: Sequence[PlacedHost], workloads: Sequence[Workload], models: Sequence[ModelFile | File]
    ) -> Iterable[Item]:
        """Return the cluster's root and its objects.

        Raises:
            LabctlError: LAB080 for what Kubernetes cannot run, LAB084 for what it cannot be told.
        """
        site = settings(hosts)
        runs = list(_runs(site, hosts, shared.formed(workloads, self, Container), models))
        made: list[Object] = []
        units: list[Unit] = []
        for run in runs:
            with shared.spelling(run.workload):
                mine = list(objects.objects(run))
            made += mine
            units.append(_unit(run, mine[0]))
        made += _stores(site, hosts, runs, models)
        pods = [o.value["spec"]["template"]["spec"] for o in made if "template" in o.value.get("spec", {})]
        made += cluster.objects(site, hosts, pods)
        _judge(made, {run.workload.origin for run in runs if run.extra})
        yield HostRoot(
            host=site.name,
            root="kubernetes",
            state="",
            managers=(Manager.KUBERNETES,),
            cluster=Cluster(
                namespace=site.namespace, context=site.context, lab=site.lab, server=prepared.server_root(hosts)
            ),
            after=tuple(host.name for host in hosts if host.machine is not None),
        )
        yield from made
        yield from units
        yield from folder.files(site, made)
        for host in hosts:
            yield from prepared.artefacts(host, site, hosts)


def _pages(options: Mapping[str, object]) -> str | None:
    """Return where an Ingress serves a workload, as far as this host's block says it."""
    scheme = "https" if options.get("tls") or options.get("issuer") else "http"
    return f"{scheme}://{{}}.{options['domain']}" if options.get("domain") else None


def _runs(
    site: Settings,
    hosts: Sequence[PlacedHost],
    chosen: Sequence[tuple[Workload, Container]],
    models: Sequence[ModelFile | File],
) -> Iterator[Run]:
    by_name = {host.name: host for host in hosts}
    fetched = {host.name: storage.fetched(host, models) for host in hosts}
    order = waves([workload for workload, _ in chosen])
    for workload, form in chosen:
        host = by_name[workload.host]
        wanted = set(workload.models)
        yield Run(
            workload=workload,
            form=form,
            host=host,
            site=site,
            nodes=_nodes(workload, form, host, hosts),
            wave=order[workload.name],
            fetched=tuple(f for f in fetched[host.name] if f.path in wanted),
            ingress=site.domain is not None,
        )


def _nodes(workload: Workload, form: Container, host: PlacedHost, hosts: Sequence[PlacedHost]) -> tuple[str, ...]:
    """Return the nodes that a workload may run on: its host's, unless it has replicas and nothing that binds it."""
    bound = workload.replicas == 1 or workload.gpu is not None or bool(form.mounts)
    return (node(host),) if bound else tuple(sorted(node(h) for h in hosts))


def _stores(
    site: Settings, hosts: Sequence[PlacedHost], runs: Sequence[Run], models: Sequence[ModelFile | File]
) -> Iterator[Object]:
    """Yield the claims of each host, and the jobs that fetch its models."""
    fetching = False
    for host in hosts:
        files = storage.fetched(host, models)
        mounts = [m for run in runs if run.host.name == host.name for m in run.form.mounts]
        reads = bool(files) or any(storage.is_models(host, m) for m in mounts)
        yield from storage.claims(host, site, mounts, models=reads and not host.places.models.startswith("/"))
        yield from storage.models(host, site, files)
        fetching = fetching or bool(files)
    if fetching:
        yield from storage.account(site)


def _judge(made: Sequence[Object], patched: Collection[DocPath]) -> None:
    """Raise LabctlError (LAB218) for what an API server would refuse: it comes from a patch, or else from a bug."""
    found = [
        Diagnostic(
            code="LAB218",
            summary=f"{fault.item.value['kind']} `{fault.item.value['metadata']['name']}`: {fault.what}",
            path=(*fault.item.origin, "extra", "k3s") if fault.item.origin in patched else fault.item.origin or None,
            hint="correct what is laid over it" if fault.item.origin in patched else "please report it as a bug",
        )
        for fault in all_faults(made)
    ]
    if found:
        raise LabctlError(found)


def _unit(run: Run, item: Object) -> Unit:
    workload = run.workload
    return Unit(
        host=run.site.name,
        name=workload.name,
        id=f"{item.value['kind']}/{item.value['metadata']['name']}",
        manager=Manager.KUBERNETES,
        project=item.path,
        fingerprint=item.digest,
        after=workload.after if workload.start is not Start.ONCE else (),
        health=workload.health,
        start=workload.start,
        time_limit=workload.time_limit,
        turns=workload.turns,
        origin=workload.origin,
        description=workload.description,
    )


target = K3s()
