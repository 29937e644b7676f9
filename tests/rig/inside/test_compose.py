"""The compose target against the host's own Docker engine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.diagnostics import ExitCode
from labctl.hosts import fleet
from labctl.hosts.events import ChangeStarted, Progress
from labctl.plan.model import Kind
from labctl.plan.observed import UnitState
from labctl.secrets import Secret, Secrets
from labctl.workload import (
    ConfigFile,
    Container,
    Health,
    ImageBuild,
    Mount,
    Port,
    Probe,
    SecretRef,
    SecretText,
    Start,
    Workload,
)
from tests.rig.inside.labs import VALUE, Lab, ask, everything, out

IMAGE = "rig/busybox:1"
SERVE = 'cp /page /www/index.html; printf %s "$TOKEN" >> /www/index.html; exec httpd -f -p 80 -h /www'
FOLDERS = ("/opt", "/var/lib/labctl")


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    """An image of the host's own static busybox."""
    root = Path("/tmp/image")
    for folder in ("bin", "www", "tmp", "data"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    out("cp", "/bin/busybox", str(root / "bin/busybox"))
    for name in ("sh", "httpd", "wget", "cp", "printf", "sleep", "cat"):
        link = root / "bin" / name
        if not link.is_symlink():
            link.symlink_to("busybox")
    tar = subprocess.run(["tar", "-C", str(root), "-c", "."], check=True, capture_output=True).stdout
    subprocess.run(["docker", "import", "-", IMAGE], input=tar, check=True, capture_output=True)


def server(name: str, port: int, text: str = "one", **facts: object) -> Workload:
    form = Container(
        image=IMAGE,
        entrypoint=("/bin/sh", "-c"),
        args=(SERVE,),
        probe=Probe.WGET,
        init=False,
        mounts=(Mount(source=f"{name}-data", target="/data", volume=True),),
    )
    workload = Workload(
        name=name,
        host="here",
        forms=(form,),
        files=(ConfigFile(name="page", content=text, target="/page"),),
        ports=(Port(name="http", listen=80, published=port),),
        health=Health(path="/", interval=1, retries=3, timeout=2, start_period=15),
        env={"TOKEN": SecretText((SecretRef("TOKEN"),))},
        extra={"compose": {"stop_grace_period": "1s"}},
    )
    return replace(workload, **facts)  # type: ignore[arg-type]


def containers() -> dict[str, str]:
    lines = out("docker", "ps", "--all", "--format", '{{.Label "com.docker.compose.service"}} {{.ID}}').splitlines()
    return dict(line.split() for line in lines)


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab("compose", {"web": server("web", 8201)})
    before = everything(*FOLDERS)
    yield made
    assert made.destroy().exit_code == ExitCode.OK
    assert everything(*FOLDERS) == before
    assert containers() == {}
    assert "rig" not in out("docker", "volume", "ls", "--quiet")
    assert "rig" not in out("docker", "network", "ls", "--format", "{{.Name}}")


def test_apply_then_nothing_to_do(lab: Lab) -> None:
    report = lab.apply()
    assert report.ok, (report.diagnostics, lab.log())
    assert ask(8201) == f"one{VALUE}"
    before = containers()
    assert lab.todo() == []
    assert lab.apply().ok
    assert containers() == before


def test_what_was_changed_by_hand_is_put_back(lab: Lab) -> None:
    lab.apply()
    page = Path("/opt/labctl/rig/web/page")
    page.write_text("by hand")
    assert lab.todo() == [
        ("opt/labctl/rig/web/page", "update", "drifted"),
        ("web", "replace", "dependency-changed"),
    ]
    assert lab.apply().ok
    assert page.read_text() == "one"
    out("docker", "stop", "--time", "1", containers()["web"])
    assert [(n, a) for n, a, _ in lab.todo()] == [("web", "start")]
    assert lab.apply().ok
    out("docker", "rm", "--force", containers()["web"])
    assert lab.todo() == [("web", "start", "missing")]
    assert lab.apply().ok
    assert ask(8201).startswith("one")
    before = containers()
    compose = Path("/opt/labctl/rig/compose.yaml")
    compose.write_text(compose.read_text() + "# by hand\n")
    assert [(a, r) for _, a, r in lab.todo()] == [("update", "drifted"), ("update", "drifted")]
    assert lab.apply().ok
    assert containers() == before
    assert lab.todo() == []


def test_only_what_changed_is_replaced_and_the_rest_is_pruned(lab: Lab) -> None:
    lab.workloads["api"] = server("api", 8202, after=("web",))
    lab.workloads["old"] = server("old", 8203)
    assert lab.apply().ok
    assert lab.done().index("/web") < lab.done().index("/api")
    before = containers()
    lab.workloads["web"] = server("web", 8201, "two")
    del lab.workloads["old"]
    assert lab.apply().ok
    after = containers()
    assert set(after) == {"web", "api"}
    assert after["api"] == before["api"]
    assert after["web"] != before["web"]
    assert ask(8201).startswith("two")
    assert "rig_old-data" in out("docker", "volume", "ls", "--quiet")
    assert lab.todo() == []


def test_a_failing_container_is_reported_with_its_log(lab: Lab) -> None:
    broken = replace(lab.workloads["web"].forms[0], args=('echo "no $TOKEN"; exit 7',))
    lab.workloads["bad"] = server("bad", 8204, forms=(broken,))
    report = lab.apply()
    assert report.exit_code == ExitCode.PARTIAL
    assert set(report.outcomes["here"].failed) == {"here/bad"}
    assert "no ***" in lab.log()
    assert VALUE not in repr(lab.events)
    del lab.workloads["bad"]
    assert lab.apply().ok


def test_a_container_that_ends_again_and_again_is_given_up_early(lab: Lab) -> None:
    """Its start period would be five minutes; it loads for two seconds, fails, and Docker brings it back."""
    assert lab.apply().ok
    broken = replace(lab.workloads["web"].forms[0], args=("sleep 2; echo out of memory; exit 1",))
    patient = Health(path="/", interval=1, retries=3, timeout=2, start_period=300)
    lab.workloads["bad"] = server("bad", 8204, forms=(broken,), health=patient)
    began = time.monotonic()
    report = lab.apply()
    assert set(report.outcomes["here"].failed) == {"here/bad"}
    assert time.monotonic() - began < 60
    assert "out of memory" in lab.log()
    del lab.workloads["bad"]
    assert lab.apply().ok


def test_a_file_that_compose_refuses_activates_nothing(lab: Lab) -> None:
    lab.apply()
    before = containers()
    lab.workloads["web"] = server("web", 8201, extra={"compose": {"restrat": "always", "stop_grace_period": "1s"}})
    report = lab.apply()
    assert [d.code for d in report.diagnostics] == ["LAB111"]
    assert containers() == before
    lab.workloads["web"] = server("web", 8201)
    assert lab.apply().ok
    assert lab.todo() == []


def test_on_demand_is_created_and_not_started(lab: Lab) -> None:
    lab.workloads["big"] = server("big", 8205, start=Start.ON_DEMAND)
    assert lab.apply().ok
    rows, _ = fleet.status(lab.tree())
    assert {r.unit.name: r.seen.state for r in rows} == {"web": UnitState.RUNNING, "big": UnitState.STOPPED}
    assert lab.todo() == []
    lab.workloads["big"] = server("big", 8205, "two", start=Start.ON_DEMAND)
    assert lab.apply().ok
    rows, _ = fleet.status(lab.tree())
    assert {r.unit.name: r.seen.state for r in rows}["big"] is UnitState.STOPPED
    out("docker", "start", containers()["big"])
    assert lab.todo() == []


def test_without_an_engine_the_host_is_not_planned(lab: Lab) -> None:
    out("systemctl", "stop", "docker.service", "docker.socket")
    try:
        plan = lab.plan()
        assert not plan.complete
        assert [d.code for d in plan.diagnostics] == ["LAB104"]
    finally:
        out("systemctl", "start", "docker.service")


def test_an_image_is_built_once_and_again_when_its_files_change(lab: Lab) -> None:
    def built(text: str) -> Workload:
        files = {"Dockerfile": f"FROM {IMAGE}\nLABEL version={text}\nCOPY motd /motd\n", "motd": text}
        plain = lab.workloads["web"].forms[0]
        assert isinstance(plain, Container)
        form = replace(plain, image="rig/built:1", build=ImageBuild(name="built", files=files))
        return server("own", 8206, forms=(form,))

    def version() -> str:
        return out("docker", "inspect", "--format", "{{.Config.Labels.version}}", containers()["own"])

    lab.workloads["own"] = built("first")
    report = lab.apply()
    assert report.ok, report.diagnostics
    assert " image rig/built:1" in lab.done()
    assert version() == "first"
    assert lab.todo() == []
    lab.workloads["own"] = built("second")
    assert lab.apply().ok
    assert version() == "second"
    assert lab.todo() == []
    del lab.workloads["own"]
    assert lab.apply().ok
    assert "rig/built" not in out("docker", "image", "ls", "--format", "{{.Repository}}")


def registry() -> str:
    """The rig's registry: at the network's first address."""
    own = out("hostname", "-I").split()[0]
    return f"{own.rpartition('.')[0]}.1:5000"


def web(image: str) -> Workload:
    plain = server("pulled", 8207).forms[0]
    assert isinstance(plain, Container)
    script = "import http.server as h; h.HTTPServer(('', 80), h.SimpleHTTPRequestHandler).serve_forever()"
    form = replace(plain, image=image, entrypoint=("python3", "-c"), args=(script,), probe=Probe.PYTHON)
    return server("pulled", 8207, forms=(form,))


def test_an_image_is_pulled_once_before_anything_is_stopped(lab: Lab) -> None:
    assert lab.apply().ok
    before = containers()
    image = f"{registry()}/ggml-org/llama.cpp:some-tag"
    lab.workloads["pulled"] = web(image)
    lab.workloads["again"] = replace(web(image), name="again", ports=(Port(name="http", listen=80, published=8208),))
    report = lab.apply()
    assert report.ok, (report.diagnostics, lab.log())
    assert lab.log().count(f"pulling {image}") == 1
    steps = [e for e in lab.events if isinstance(e, Progress) and e.path == image]
    assert steps  # how many bytes they tell is Docker's: of a layer that comes at once it prints none (test_images.py)
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    first_unit = next(n for n, e in enumerate(lab.events) if isinstance(e, ChangeStarted) and e.kind == Kind.UNIT)
    assert lab.events.index(steps[-1]) < first_unit
    assert containers()["web"] == before["web"]
    assert lab.apply().ok
    assert "pulling" not in lab.log()
    out("docker", "rm", "--force", containers()["pulled"])
    assert lab.apply().ok
    assert "pulling" not in lab.log()
    lab.workloads.pop("pulled")
    lab.workloads.pop("again")
    assert lab.apply().ok
    out("docker", "image", "rm", image)


@pytest.mark.parametrize(
    ("image", "code"), [("{registry}/nope/nope:1", "LAB157"), ("127.0.0.9:1/nope/nope:1", "LAB158")]
)
def test_an_image_that_cannot_be_had_stops_nothing(lab: Lab, image: str, code: str) -> None:
    assert lab.apply().ok
    before = containers()
    lab.workloads["web"] = replace(web(image.format(registry=registry())), name="web")
    lab.workloads["other"] = server("other", 8209)
    report = lab.apply()
    assert [d.code for d in report.diagnostics] == [code]
    assert report.diagnostics[0].hint
    assert containers() == before
    assert ask(8201).startswith("one")
    lab.workloads["web"] = server("web", 8201)
    del lab.workloads["other"]
    assert lab.apply().ok
    assert lab.todo() == []


def test_a_rotated_secret_replaces_exactly_the_containers_that_use_it(lab: Lab) -> None:
    lab.workloads["web"] = server("web", 8201)
    lab.workloads["other"] = server("other", 8210, env={}, after=("web",))
    lab.secrets = Secrets({"TOKEN": Secret("before")})
    assert lab.apply().ok
    before = containers()
    lab.secrets = Secrets({"TOKEN": Secret("after the change")})
    assert [(n, a) for n, a, _ in lab.todo()] == [
        ("opt/labctl/rig/secrets/web.env", "update"),
        ("web", "replace"),
    ]
    assert lab.apply().ok
    assert ask(8201) == "oneafter the change"
    assert containers()["other"] == before["other"]
    assert containers()["web"] != before["web"]
    stored = Path("/opt/labctl/rig/secrets/web.env")
    assert (stored.stat().st_mode & 0o777, stored.stat().st_uid) == (0o600, 0)
    processes = b"".join(p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists())
    assert b"after the change" not in processes
    assert lab.todo() == []
