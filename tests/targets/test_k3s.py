"""What a workload becomes in a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from labctl import targets
from labctl.artefact import File, Manager, ModelFile, Object, Tree
from labctl.diagnostics import LabctlError
from labctl.placed import PlacedHost
from labctl.quantity import GIB, MIB
from labctl.workload import (
    Accelerator,
    ConfigFile,
    Container,
    GpuClaim,
    GpuDevice,
    Health,
    Mount,
    Port,
    SecretRef,
    SecretText,
    Start,
    Workload,
)
from tests.targets import samples

Value = Mapping[str, Any]


def host(name: str = "box", **changes: Any) -> PlacedHost:
    return samples.host("k3s", **{"name": name, **changes})


def placed(models: str | None = None, **options: Any) -> PlacedHost:
    places = targets.load("k3s").places("lab", options, models)
    return dataclasses.replace(host(options=options), places=places)


def named(tree: Tree, kind: str, name: str = "") -> Object:
    found = [o for o in tree.objects if o.value["kind"] == kind and str(o.value["metadata"]["name"]).startswith(name)]
    assert len(found) == 1, [o.path for o in found]
    return found[0]


def pod(tree: Tree, kind: str, name: str) -> Value:
    spec: Value = named(tree, kind, name).value["spec"]["template"]["spec"]
    return spec


def container(tree: Tree, kind: str, name: str) -> Value:
    value: Value = pod(tree, kind, name)["containers"][0]
    return value


def plain(name: str = "page", **changes: Any) -> Workload:
    workload = Workload(
        name=name,
        host="box",
        forms=(Container(image="example.org/page:1"),),
        ports=(Port(name="http", listen=8080, published=None),),
        origin=("services", name),
    )
    return dataclasses.replace(workload, **changes)


def formed(workload: Workload, **changes: Any) -> Workload:
    (form,) = workload.forms
    return dataclasses.replace(workload, forms=(dataclasses.replace(form, **changes),))


def test_a_server_asks_for_cards_and_not_for_bytes() -> None:
    where = placed()
    tree = samples.render(where, samples.server(where, memory_limit=3 * GIB, cpus=1.5))
    asked = container(tree, "Deployment", "chat")["resources"]
    assert asked["requests"] == {"nvidia.com/gpu": "1", "memory": "3Gi"}
    assert asked["limits"] == {"cpu": "1500m", "nvidia.com/gpu": "1", "memory": "3Gi"}
    spec = pod(tree, "Deployment", "chat")
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "box"}
    assert named(tree, "Deployment", "chat").value["spec"]["strategy"] == {"type": "Recreate"}


def test_the_nodes_default_runtime_needs_no_class() -> None:
    where = placed(runtime_class=None)
    assert "runtimeClassName" not in pod(samples.render(where, samples.server(where)), "Deployment", "chat")


def test_amd_cards_have_their_own_resource_and_groups() -> None:
    where = dataclasses.replace(host(vendor="amd"), places=placed().places)
    claim = samples.claim(where, Accelerator.ROCM, order=(0, 1))
    tree = samples.render(where, samples.server(where, gpu=claim))
    assert container(tree, "Deployment", "chat")["resources"]["limits"] == {"amd.com/gpu": "2"}
    spec = pod(tree, "Deployment", "chat")
    assert spec["securityContext"]["supplementalGroups"] == [44, 109]
    assert "runtimeClassName" not in spec


def test_who_only_looks_at_cards_takes_none() -> None:
    where = placed()
    claim = GpuClaim(accelerator=Accelerator.CUDA, devices=(GpuDevice(0), GpuDevice(1)), observes=True)
    tree = samples.render(where, plain(gpu=claim))
    looking = container(tree, "DaemonSet", "page")
    assert "resources" not in looking
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"} in looking["env"]


def test_a_start_may_take_as_long_as_a_model_needs() -> None:
    where = placed()
    slow = samples.server(where, health=Health(path="/health", start_period=7200))
    for workload, seconds in ((samples.server(where), 1800), (slow, 7200)):
        tree = samples.render(where, workload)
        probe = container(tree, "Deployment", "chat")["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= seconds
        assert probe["httpGet"] == {"path": "/health", "port": "http"}
        assert named(tree, "Deployment", "chat").value["spec"]["progressDeadlineSeconds"] > seconds


def test_commands_are_asked_inside() -> None:
    tree = samples.render(placed(), plain(health=Health(command=("pg_isready", "$(X)"))))
    assert container(tree, "Deployment", "page")["readinessProbe"]["exec"] == {"command": ["pg_isready", "$(X)"]}


def test_dollars_reach_the_program_as_they_are() -> None:
    """Kubernetes makes ``$(NAME)`` a variable and ``$$`` a dollar, in arguments and variables."""
    texts = {"$HOME": "$HOME", "$(id)": "$$(id)", "a$$b $c": "a$$$$b $$c", "100%": "100%"}
    workload = formed(plain(env={f"V{i}": t for i, t in enumerate(texts)}), args=tuple(texts))
    seen = container(samples.render(placed(), workload), "Deployment", "page")
    assert seen["args"] == list(texts.values())
    assert [v["value"] for v in seen["env"]] == list(texts.values())


def test_secrets_are_keys_without_values() -> None:
    where = placed()
    tree = samples.render(where, samples.server(where), samples.gateway(where))
    secret = named(tree, "Secret", "gateway-env")
    assert secret.entries == {"DATABASE_URL": SecretText(("postgresql://lab:", SecretRef("DB_PASSWORD"), "@db/lab"))}
    assert set(secret.value) == {"apiVersion", "kind", "metadata", "type"}
    reference = {"secretKeyRef": {"name": "gateway-env", "key": "DATABASE_URL"}}
    assert {"name": "DATABASE_URL", "valueFrom": reference} in container(tree, "StatefulSet", "gateway")["env"]
    assert tree.secret_names == {"DB_PASSWORD"}


def test_other_configuration_is_another_object() -> None:
    def config(text: str) -> Object:
        file = ConfigFile(name="etc/a b.conf", content=text, target="/etc/page.conf", mode=0o755)
        tree = samples.render(placed(), plain(files=(file,)))
        found = named(tree, "ConfigMap", "page")
        (volume,) = pod(tree, "Deployment", "page")["volumes"]
        assert volume["configMap"]["name"] == found.value["metadata"]["name"]
        assert volume["configMap"]["items"] == [{"key": "etc__a-b.conf", "path": "etc__a-b.conf", "mode": 0o755}]
        (mount,) = container(tree, "Deployment", "page")["volumeMounts"]
        assert mount["mountPath"] == "/etc/page.conf"
        assert mount["subPath"] == "etc__a-b.conf"
        return found

    one, other = config("a"), config("b")
    assert one.value["immutable"] is True
    assert one.path != other.path


@pytest.mark.parametrize(
    ("kind", "changes", "form"),
    [
        ("Deployment", {}, {}),
        ("StatefulSet", {}, {"mounts": (Mount(source="data", target="/data", volume=True),)}),
        ("Deployment", {"replicas": 2}, {"mounts": (Mount(source="data", target="/data", volume=True),)}),
        ("Job", {"start": Start.ONCE}, {}),
    ],
)
def test_what_runs_it(kind: str, changes: Mapping[str, Any], form: Mapping[str, Any]) -> None:
    tree = samples.render(placed(), formed(plain(**changes), **form))
    (unit,) = tree.units
    item = named(tree, kind, "page")
    assert unit.manager is Manager.KUBERNETES
    assert unit.id == f"{kind}/{item.value['metadata']['name']}"
    assert unit.project == item.path
    assert unit.fingerprint == item.digest


def test_claims_belong_to_a_node_and_have_a_size() -> None:
    mounts = (
        Mount(source="data", target="/data", volume=True, size=1536 * MIB),
        Mount(source="x", target="/x", volume=True),
    )
    tree = samples.render(placed(storage_class=None, volume_size=5 * GIB), formed(plain(), mounts=mounts))
    data, other = named(tree, "PersistentVolumeClaim", "data-box"), named(tree, "PersistentVolumeClaim", "x-box")
    assert data.value["spec"]["resources"]["requests"]["storage"] == "1536Mi"
    assert other.value["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert "storageClassName" not in data.value["spec"]
    assert data.wave < named(tree, "StatefulSet", "page").wave


def test_a_task_that_does_something_else_is_another_job() -> None:
    where = placed()

    def job(*args: str) -> str:
        task = samples.task(where, after=(), env={"TOKEN": SecretText((SecretRef("A"),))})
        form = Container(image="example.org/task:1", args=args)
        tree = samples.render(where, dataclasses.replace(task, forms=(form,)))
        assert named(tree, "Job", "task").value["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
        return str(named(tree, "Job", "task").value["metadata"]["name"])

    assert job("apply") == job("apply") != job("apply", "more")


def test_taking_turns_is_a_number_of_replicas() -> None:
    where = placed()
    one = samples.server(where, "one", turns="gpu")
    two = samples.server(where, "two", turns="gpu", start=Start.ON_DEMAND)
    tree = samples.render(where, one, two)
    assert [named(tree, "Deployment", n).value["spec"]["replicas"] for n in ("one", "two")] == [1, 0]


def test_replicas_are_spread_over_the_nodes() -> None:
    target = targets.load("k3s")
    hosts = [placed(), dataclasses.replace(placed(node="node-2"), name="other")]
    assert hasattr(target, "render_site")
    tree = Tree.of(target.render_site(hosts, [plain(replicas=3)], []))
    spec = pod(tree, "Deployment", "page")
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["box", "node-2"]
    assert spec["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
    assert named(tree, "PodDisruptionBudget").value["spec"]["maxUnavailable"] == 1


def test_names_lead_to_pods_from_every_node() -> None:
    tree = samples.render(placed(), plain())
    assert named(tree, "Service", "page").value["spec"]["ports"] == [
        {"name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP"}
    ]


def test_people_come_by_host_name_or_by_a_port_of_the_node() -> None:
    open_page = plain(public=("http",), ports=(Port(name="http", listen=8080, published=80, bind="10.0.0.5"),))
    by_name = samples.render(placed(domain="lab.example", disable=("traefik",)), open_page)
    ingress = named(by_name, "Ingress").value
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert [r["host"] for r in ingress["spec"]["rules"]] == ["page.lab.example"]
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert "hostPort" not in container(by_name, "Deployment", "page")["ports"][0]
    by_port = samples.render(placed(), open_page)
    assert not [o for o in by_port.objects if o.value["kind"] == "Ingress"]
    port = container(by_port, "Deployment", "page")["ports"][0]
    assert (port["hostPort"], port["hostIP"]) == (80, "10.0.0.5")


def test_loopback_of_a_node_is_nobodys() -> None:
    tree = samples.render(placed(), plain(ports=(Port(name="http", listen=80, published=80),)))
    assert "hostPort" not in container(tree, "Deployment", "page")["ports"][0]


def test_only_those_whom_it_serves_may_call() -> None:
    database = plain("database", serves_to=("page",))
    tree = samples.render(placed(), plain(serves_to=()), database)
    rules = named(tree, "NetworkPolicy", "database").value["spec"]["ingress"]
    labels = {"app.kubernetes.io/name": "page", "app.kubernetes.io/part-of": "lab"}
    assert rules == [{"from": [{"podSelector": {"matchLabels": labels}}], "ports": [{"protocol": "TCP", "port": 8080}]}]
    assert named(tree, "NetworkPolicy", "page").value["spec"]["ingress"] == []
    assert named(tree, "NetworkPolicy", "default-deny").value["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_pods_may_as_little_as_they_can() -> None:
    tree = samples.render(placed(), formed(plain(), user="1000:2000", shm_size=64 * MIB))
    spec = pod(tree, "Deployment", "page")
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (1000, 2000)
    assert container(tree, "Deployment", "page")["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "labctl-shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}} in spec["volumes"]
    tree = samples.render(placed(), formed(plain(), sealed=True))
    sealed = container(tree, "Deployment", "page")
    assert sealed["securityContext"]["readOnlyRootFilesystem"] is True
    assert sealed["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [m["name"] for m in sealed["volumeMounts"] if m["mountPath"] == "/tmp"] == ["labctl-tmp"]
    level = named(tree, "Namespace").value["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert level == "baseline"


def test_a_folder_of_the_node_is_beyond_the_baseline() -> None:
    tree = samples.render(
        placed(), formed(plain(), mounts=(Mount(source="/proc", target="/host/proc", read_only=True),))
    )
    assert pod(tree, "Deployment", "page")["volumes"][0]["hostPath"] == {"path": "/proc"}
    level = named(tree, "Namespace").value["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert level == "privileged"


def test_users_are_numbers() -> None:
    with pytest.raises(LabctlError) as caught:
        samples.render(placed(), formed(plain(), user="nobody"))
    assert [d.code for d in caught.value.diagnostics] == ["LAB084"]


def test_swap_limits_and_built_images_are_not_dropped() -> None:
    with pytest.raises(LabctlError) as caught:
        samples.render(placed(), plain(swap_limit=GIB))
    assert [d.code for d in caught.value.diagnostics] == ["LAB080"]


def test_model_files_are_fetched_before_anything_reads_them() -> None:
    where = placed()
    mount = Mount(source=where.places.models, target="/models", read_only=True)
    server = formed(dataclasses.replace(samples.server(where), forms=samples.server(where).forms[:1]), mounts=(mount,))
    tree = samples.render(where, server)
    job, deployment = named(tree, "Job", "fetch-"), named(tree, "Deployment", "chat")
    assert job.wave < deployment.wave
    loader = job.value["spec"]["template"]["spec"]["containers"][0]
    assert loader["args"] == [samples.MODEL, "https://example.org/model.gguf", "", ""]
    (init,) = pod(tree, "Deployment", "chat")["initContainers"]
    assert init["args"] == loader["args"]
    (mounted,) = container(tree, "Deployment", "chat")["volumeMounts"]
    assert mounted == {"name": "labctl-models", "mountPath": "/models", "readOnly": True}
    claim = {"persistentVolumeClaim": {"claimName": "models-box"}}
    assert {"name": "labctl-models", **claim} in pod(tree, "Deployment", "chat")["volumes"]
    assert not [a for a in tree.artefacts if isinstance(a, ModelFile)]


def test_a_models_folder_of_the_node_is_used_where_lab_yaml_names_one() -> None:
    where = placed("/srv/models")
    mount = Mount(source="/srv/models", target="/models", read_only=True)
    tree = samples.render(where, formed(plain(models=(samples.MODEL,)), mounts=(mount,)))
    volumes = pod(tree, "Deployment", "page")["volumes"]
    path = {"path": "/srv/models", "type": "DirectoryOrCreate"}
    assert {"name": "labctl-models", "hostPath": path} in volumes
    assert not [o for o in tree.objects if o.value["kind"] == "PersistentVolumeClaim"]


def test_small_models_of_labctls_own_travel_in_the_cluster() -> None:
    where = placed()
    file = File(host="box", path="models/tiny.gguf", content=b"GGUF", origin=("models", "tiny"))
    mount = Mount(source=where.places.models, target="/models", read_only=True)
    workload = formed(plain(models=("tiny.gguf",)), mounts=(mount,))
    tree = Tree.of(targets.load("k3s").render(where, [workload], [file]))
    shipped = named(tree, "ConfigMap", "model-tiny")
    assert shipped.value["binaryData"] == {"tiny.gguf": "R0dVRg=="}
    arguments = named(tree, "Job", "fetch-tiny").value["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[:3] == ["tiny.gguf", "file:///shipped/tiny/tiny.gguf", "4"]
    assert not [a for a in tree.files() if a.path.endswith(".gguf")]


def test_patches_come_last() -> None:
    extra = {
        "k3s": {
            "pod": {"priorityClassName": "high"},
            "container": {"resources": {"requests": {"memory": "1Gi"}}},
            "deployment": {"spec": {"revisionHistoryLimit": 9}},
            "service": {"metadata": {"annotations": {"a": "b"}}},
        }
    }
    tree = samples.render(placed(), plain(extra=extra))
    assert pod(tree, "Deployment", "page")["priorityClassName"] == "high"
    assert container(tree, "Deployment", "page")["resources"] == {"requests": {"memory": "1Gi"}}
    assert named(tree, "Deployment", "page").value["spec"]["revisionHistoryLimit"] == 9
    assert named(tree, "Service", "page").value["metadata"]["annotations"] == {"a": "b"}


def test_a_patch_that_a_server_would_refuse_is_said() -> None:
    extra = {"k3s": {"container": {"resources": {"requests": {"memory": "1024Mi"}}}}}
    with pytest.raises(LabctlError) as caught:
        samples.render(placed(), plain(extra=extra))
    (found,) = caught.value.diagnostics
    assert found.code == "LAB218"
    assert "`1024Mi` as `1Gi`" in found.summary
