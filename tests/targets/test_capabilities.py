"""What does not fit is said in words, with the remedy."""

from __future__ import annotations

import pytest

from labctl import targets
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.targets.capabilities import choose_form, needed
from labctl.workload import Capability, Container, Native, SecretText, Workload
from tests.targets import samples


def diagnostic(workload: Workload, target: str) -> Diagnostic:
    found = choose_form(workload, targets.load(target))
    assert isinstance(found, Diagnostic)
    return found


def test_a_target_takes_the_first_form_that_it_accepts() -> None:
    workload = samples.server(samples.host())
    kinds = {name: type(choose_form(workload, targets.load(name))) for name in targets.TARGETS}
    assert kinds == {
        "compose": Container,
        "k3s": Container,
        "systemd": Native,
        "local": Native,
        "nixos": Container,
    }


def test_every_need_is_seen() -> None:
    host = samples.host()
    found = {
        capability
        for w in (samples.limited(host), samples.gateway(host, replicas=2, controls=("chat",)), samples.task(host))
        for f in w.forms
        for capability in needed(w, f)
    }
    found |= {c for f in samples.server(host).forms for c in needed(samples.server(host), f)}
    found |= needed(samples.server(host), Native(program="{python}"))
    assert found == set(Capability)


def test_a_text_without_secrets_is_none() -> None:
    workload = samples.server(samples.host(), env={"A": SecretText(("plain",))})
    assert Capability.SECRET_ENV not in needed(workload, workload.forms[0])


def test_a_container_where_only_programs_run() -> None:
    host = samples.host("systemd")
    found = diagnostic(samples.server(host, forms=(Container(image="example.org/vllm:1"),)), "systemd")
    assert (found.code, found.path) == ("LAB080", ("deployments", "chat"))
    assert found.summary == "`chat` cannot run on `box`: target `systemd` has no container images"
    assert found.hint == "give `box` `target: compose`, or give `box` `target: k3s`, or give `box` `target: nixos`"
    assert "as a container it needs container images, GPU access" in found.detail
    assert "`systemd` accepts programs of the host, GPU access" in found.detail


def test_a_limit_that_can_be_left_out() -> None:
    host = samples.host("local")
    native = Native(program="/usr/bin/true")
    found = diagnostic(samples.server(host, forms=(native,), memory_limit=1, cpus=2.0), "local")
    assert (
        found.hint
        == "give `box` `target: systemd`, or give `box` `target: nixos`, or leave out `memory_limit` and `cpus`"
    )


def test_what_nothing_can_run() -> None:
    host = samples.host("local")
    found = diagnostic(samples.server(host, forms=(Native(program="{python}"),), memory_limit=1), "systemd")
    assert found.hint == "no target can run it as it is: choose another engine or fewer limits"


def test_rendering_what_does_not_fit_names_every_workload() -> None:
    host = samples.host("local")
    native = (Native(program="/usr/bin/true"),)
    first, second = (samples.server(host, name, forms=native, memory_limit=1) for name in ("a", "b"))
    with pytest.raises(LabctlError) as caught:
        samples.render(host, first, second)
    assert [d.code for d in caught.value.diagnostics] == ["LAB080", "LAB080"]
