"""Kubernetes objects of the examples: strict schemas, the lint, kustomize; and that secrets have no values anywhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from labctl import folder
from labctl.artefact import Manager, Object, Tree
from labctl.targets.k3s.references import all_faults
from tests.examples import labs
from tests.tools import kube_schemas, kustomize

CLUSTERS = tuple(n for n in labs.NAMES if "target: k3s" in (labs.EXAMPLES / n / "lab.yaml").read_text())
each = pytest.mark.parametrize("name", CLUSTERS)


@functools.cache
def tree_of(name: str) -> Tree:
    return labs.tree(labs.example(name))


def objects(name: str) -> tuple[Object, ...]:
    return tree_of(name).objects


def test_examples_have_clusters() -> None:
    assert {"gpu-cluster", "k3s-droplet"} <= set(CLUSTERS)


@each
def test_strict_schemas(name: str) -> None:
    found = [problem for item in objects(name) for problem in kube_schemas.problems(item.value)]
    assert found == []


@each
def test_lint(name: str) -> None:
    assert [(f.item.path, f.what) for f in all_faults(objects(name))] == []


@each
def test_text_and_value_are_one(name: str) -> None:
    for item in objects(name):
        assert yaml.safe_load(item.content) == item.value, item.path


@each
def test_kustomize_builds_everything_but_secrets(name: str, tmp_path: Path) -> None:
    tree = tree_of(name)
    wanted = folder.wanted_files(tree)
    folder.write(tmp_path, wanted, folder.compare(tmp_path, wanted))
    (cluster,) = [host for host, root in tree.roots.items() if root.cluster]
    built = list(yaml.safe_load_all(kustomize.build(tmp_path / cluster)))
    assert sorted(map(identity, built)) == sorted(identity(o.value) for o in tree.objects if not o.entries)
    by_identity = {identity(o.value): o.value for o in tree.objects}
    assert all(by_identity[identity(value)] == value for value in built)


@each
def test_kustomize_makes_the_secrets_from_files_that_a_person_writes(name: str, tmp_path: Path) -> None:
    tree = tree_of(name)
    wanted = folder.wanted_files(tree)
    folder.write(tmp_path, wanted, folder.compare(tmp_path, wanted))
    (place,) = tmp_path.glob("*/_secrets")
    for example in place.glob("*.env.example"):
        example.with_suffix("").write_text(example.read_text())
    built = {v["metadata"]["name"]: v for v in yaml.safe_load_all(kustomize.build(place))}
    entries = {o.value["metadata"]["name"]: set(o.entries) for o in tree.objects if o.entries}
    assert {n: set(v["data"]) for n, v in built.items()} == entries


@each
def test_units_lead_to_objects(name: str) -> None:
    tree = tree_of(name)
    known = {(o.path, f"{o.value['kind']}/{o.value['metadata']['name']}") for o in tree.objects}
    units = [u for u in tree.units if u.manager is Manager.KUBERNETES]
    assert units
    assert {(u.project, u.id) for u in units} <= known
    runners = {"Deployment", "StatefulSet", "DaemonSet", "Job"}
    ours = {o.path for o in tree.objects if o.value["kind"] in runners and not o.path.startswith("_")}
    assert {u.project for u in units} == ours


@each
def test_secrets_have_keys_and_no_values(name: str) -> None:
    secrets = [o for o in objects(name) if o.value["kind"] == "Secret"]
    assert secrets
    for item in secrets:
        assert item.entries
        assert not {"data", "stringData"} & set(item.value)


def identity(value: Any) -> tuple[str, str, str]:
    return value["kind"], value["metadata"].get("namespace", ""), value["metadata"]["name"]


def test_missing_schema_is_a_failure() -> None:
    value = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "x"}}
    assert list(kube_schemas.problems(value)) == ["there is no schema for example.org/v1 Thing"]


def test_unknown_fields_are_a_failure() -> None:
    chart = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "metadata": {"name": "x"}, "spec": {"chrat": "x"}}
    pod: dict[str, Any] = {"containers": [{"name": "x", "imagee": "y"}]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    value = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}
    assert [p for p in kube_schemas.problems(chart) if "chrat" in p]
    assert [p for p in kube_schemas.problems(value) if "imagee" in p]
