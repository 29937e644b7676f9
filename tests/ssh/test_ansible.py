"""Files are brought to other machines by a real Ansible, over real SSH servers, and it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.artefact import File, HostRoot, Login, SecretFile, Tree
from labctl.diagnostics import Diagnostic, ExitCode
from labctl.hosts import ansible, fleet
from labctl.hosts.ansible import Courier, Parcel, Reach
from labctl.hosts.base import Check, HostError, Site
from labctl.hosts.connect import CONNECTIONS, connect
from labctl.hosts.events import Event
from labctl.hosts.place import AnsiblePlacer, Item, Load, new_staging, placer_of, reach_of, staged
from labctl.hosts.ssh import SshShell
from labctl.hosts.state import own_state_folder
from labctl.hosts.work import CRASH
from labctl.plan.diff import diff
from labctl.plan.model import Plan
from labctl.secrets import Secret, Secrets
from labctl.workload import SecretRef, SecretText
from tests.ssh.conftest import root_of
from tests.ssh.servers import Net, Sshd, can_have_own_users, own_users

pytestmark = pytest.mark.slow

SENTINEL = "sentinel-3b1c9e-value"
ELSEWHERE = "sentinel-77ab-of-the-environment"
SECRETS = Secrets({"KEY": Secret(SENTINEL)})


def tree(*roots: HostRoot, text: str = "one", count: int = 5) -> Tree:
    secret = {"K": SecretText(("u:", SecretRef("KEY")))}
    items: list[File | SecretFile | HostRoot] = list(roots)
    for root in roots:
        items += [
            File(host=root.host, path=f"etc/f{n}", content=f"{text} {{{{ lookup('env', 'HOME') }}}}\n".encode())
            for n in range(count)
        ]
        items.append(SecretFile(host=root.host, path="etc/s.env", entries=secret))
    return Tree.of(items)


def plan_of(wanted: Tree, secrets: Secrets = SECRETS) -> Plan:
    return diff(wanted, fleet.observe(wanted, secrets), fleet.secret_digests(wanted, secrets))


def apply(wanted: Tree, secrets: Secrets = SECRETS, events: list[Event] | None = None) -> fleet.Report:
    told = events if events is not None else []
    return fleet.apply(plan_of(wanted, secrets), wanted, secrets, told.append)


def hosts(net: Net, folder: Path, count: int) -> list[HostRoot]:
    found = [root_of(net.serve(), str(folder / f"far{n}")) for n in range(count)]
    return [replace(root, host=f"far{n}") for n, root in enumerate(found)]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many hosts each run of Ansible had."""
    counted: list[int] = []
    go = ansible._Run.go

    def counting(run: ansible._Run, parcels: list[Parcel]) -> None:
        counted.append(len(parcels))
        go(run, parcels)

    monkeypatch.setattr(ansible._Run, "go", counting)
    return counted


def test_hosts_that_are_ready_together_share_a_run(net: Net, tmp_path: Path, runs: list[int]) -> None:
    wanted = tree(*hosts(net, tmp_path, 3))
    report = apply(wanted)
    assert report.ok, report.diagnostics
    assert runs == [3]
    for number in range(3):
        assert (tmp_path / f"far{number}/etc/f4").read_text() == "one {{ lookup('env', 'HOME') }}\n"
        assert not (tmp_path / f"far{number}/state/staging").exists()
    assert apply(wanted).ok
    assert runs == [3], "nothing has changed: no Ansible"


def test_a_rotated_secret_needs_no_ansible(server: Sshd, tmp_path: Path, runs: list[int]) -> None:
    wanted = tree(root_of(server, str(tmp_path / "far")))
    assert apply(wanted).ok
    assert apply(wanted, Secrets({"KEY": Secret("rotated")})).ok
    assert "u:rotated" in (tmp_path / "far/etc/s.env").read_text()
    assert len(runs) == 1


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Everything that was in Ansible's folder when it was removed."""
    kept = tmp_path / "artifacts"

    class Keeping(tempfile.TemporaryDirectory[str]):
        def cleanup(self) -> None:
            assert Path(self.name).stat().st_mode & 0o777 == 0o700
            shutil.copytree(self.name, kept, dirs_exist_ok=True)
            super().cleanup()

        def __exit__(self, *exc: object) -> None:
            self.cleanup()

    monkeypatch.setattr("labctl.hosts.ansible.tempfile.TemporaryDirectory", Keeping)
    return kept


def command_lines(stop: threading.Event) -> Iterator[str]:
    while not stop.is_set():
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
        time.sleep(0.02)


def test_no_secret_is_anywhere_but_in_its_file(
    server: Sshd, tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in Ansible's folder, an argument, an event, what is printed, sshd's log or labctl's own files on the host."""
    monkeypatch.setenv("SOME_API_KEY", ELSEWHERE)
    seen: set[str] = set()
    stop = threading.Event()
    sampler = threading.Thread(target=lambda: seen.update(command_lines(stop)))
    sampler.start()
    events: list[Event] = []
    wanted = tree(root_of(server, str(tmp_path / "far")))
    try:
        report = apply(wanted, events=events)
    finally:
        stop.set()
        sampler.join()
    assert report.ok, report.diagnostics
    assert any("ansible-playbook" in line for line in seen)
    held = [p.read_bytes().decode(errors="replace") for p in artifacts.rglob("*") if p.is_file()]
    assert any("etc/f4" in text for text in held), "the bundle is among what was looked at"
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    state = [p.read_text() for p in (tmp_path / "far/state").rglob("*") if p.is_file() and p.name != "secret-0"]
    for text in (*seen, *held, *state, repr(events), repr(report), server.log):
        assert SENTINEL not in text
        assert ELSEWHERE not in text
    assert SENTINEL in (tmp_path / "far/etc/s.env").read_text()


@pytest.mark.skipif(not can_have_own_users(), reason="needs root, unshare, sudo and openssl: apt-get install sudo")
@pytest.mark.parametrize("rule", ["lab ALL=(ALL:ALL) ALL", "lab ALL=(ALL:ALL) NOPASSWD: ALL"])
def test_to_root_by_sudo(net: Net, tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """The password goes from memory to the prompt and nowhere else."""
    place = net.folder / "users"
    place.mkdir()
    server = net.serve(within=own_users(place, SENTINEL, rule))
    monkeypatch.setattr(CONNECTIONS, "sudo_password", lambda _: SENTINEL)
    seen: set[str] = set()
    stop = threading.Event()
    sampler = threading.Thread(target=lambda: seen.update(command_lines(stop)))
    sampler.start()
    try:
        plain = Secrets({"KEY": Secret("another one")})
        report = apply(tree(root_of(server, str(tmp_path / "far"), user="lab", sudo=True)), plain)
    finally:
        stop.set()
        sampler.join()
    assert report.ok, report.diagnostics
    found = (tmp_path / "far/etc/f1").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o644)
    assert any("sudo" in line for line in seen)
    held = [p.read_bytes().decode(errors="replace") for p in artifacts.rglob("*") if p.is_file()]
    assert not [text for text in (*seen, *held, repr(report), server.log) if SENTINEL in text]


def test_the_users_own_ansible_changes_nothing(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\nremote_user = nobody\n[ssh_connection]\nssh_args = -o Port=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in {"CONFIG": str(tmp_path / "ansible.cfg"), "REMOTE_USER": "nobody", "CHECK_MODE": "1"}.items():
        monkeypatch.setenv(f"ANSIBLE_{name}", value)
    assert apply(tree(root_of(server, str(tmp_path / "far")))).ok
    assert not (tmp_path / "home").exists()
    assert capfd.readouterr().out == ""


def placed(server: Sshd, folder: Path, item: Item) -> Diagnostic | None:
    """Place files over SSH; return what was said against it."""
    site = connect(root_of(server, str(folder)))
    own_state_folder(site)
    placer = placer_of(site, Courier())
    assert isinstance(placer, AnsiblePlacer)
    try:
        staging = new_staging(site)
        load = Load(staging=staging, items=(item,), checks=(verify(staging),))
        assert placer.place(load, lambda: None) == {}
    except HostError as error:
        return error.diagnostic
    return None


def unit_file(line: str) -> Item:
    return Item(path="etc/x.service", content=f"[Service]\nExecStart=/bin/true\n{line}\n".encode(), mode=0o644)


def verify(staging: str) -> Check:
    path = f"{staged(staging)}/etc/x.service"
    argv = ("systemd-analyze", "verify", "--man=no", path)
    return Check(argv=argv, code="LAB113", summary="refused", names=("x.service",))


def test_what_systemd_refuses_is_not_put_in_place(server: Sshd, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    far = tmp_path / "far"
    assert placed(server, far, unit_file("Restart=always")) is None
    before = (far / "etc/x.service").read_bytes()
    said = placed(server, far, unit_file("Restrat=always"))
    assert said is not None
    assert said.code == "LAB113"
    assert "Restrat" in said.detail
    assert (far / "etc/x.service").read_bytes() == before
    assert not (far / "state/staging").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda reach: replace(reach, python="no-such-python"), ("could not send the files", "no-such-python")),
        (lambda reach: replace(reach, options=("-o", "Port=1")), ("could not reach it", "refused")),
        (lambda reach: replace(reach, sudo=True, password=Secret(SENTINEL)), ("",)),
    ],
    ids=["no Python", "no server", "sudo"],
)
def test_failures_in_plain_words(
    server: Sshd, tmp_path: Path, change: Callable[[Reach], Reach], words: tuple[str, ...], artifacts: Path
) -> None:
    shell = connect(root_of(server, str(tmp_path))).shell
    assert isinstance(shell, SshShell)
    staging = tmp_path / "staging"
    staging.mkdir(mode=0o700)
    parcel = Parcel(host="far", reach=change(reach_of(shell)), staging=str(staging), bundle=b"no tar")
    with pytest.raises(HostError, match="LAB148") as caught:
        Courier().bring(parcel)
    said = f"{caught.value.diagnostic.summary}\n{caught.value.diagnostic.detail}"
    assert all(word in said for word in words), said
    everything = [said, *(p.read_bytes().decode(errors="replace") for p in artifacts.rglob("*") if p.is_file())]
    assert not [text for text in everything if SENTINEL in text]


def test_without_ansible_it_says_so(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ansible_runner", None)
    report = apply(tree(root_of(server, str(tmp_path / "far"))))
    assert [d.code for d in report.diagnostics] == ["LAB147"]
    assert report.exit_code == ExitCode.ERROR
    assert not (tmp_path / "far/etc").exists()
    monkeypatch.undo()


def test_a_refused_apply_can_be_repeated(server: Sshd, tmp_path: Path) -> None:
    """What was announced is taken back: the plan is the same as before, and nothing counts as interrupted."""
    wanted = tree(root_of(server, str(tmp_path / "far")))
    first = plan_of(wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ansible_runner", None)
        assert not fleet.apply(first, wanted, SECRETS, lambda _: None).ok
    assert {(c.address, c.action, c.reason) for c in plan_of(wanted).todo} == {
        (c.address, c.action, c.reason) for c in first.todo
    }
    assert apply(wanted).ok


KILLED = """
import sys
from labctl.artefact import HostRoot, Login
from tests.ssh.test_ansible import apply, tree
root = HostRoot(host="far", root=sys.argv[1], state="state", address=sys.argv[2], login=Login(port=int(sys.argv[3])))
sys.exit(apply(tree(root, text="two", count=7)).exit_code)
"""


def process(server: Sshd, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", KILLED, str(folder), server.address, str(server.port)]
    return subprocess.Popen(arguments, env={**os.environ, **environment})


def as_the_last(server: Sshd, folder: Path) -> None:
    """A third version is applied on top, and it is exactly that, even after whatever still ran has ended."""
    root = HostRoot(host="far", root=str(folder), state="state", address=server.address, login=Login(port=server.port))
    wanted = tree(root, text="three", count=4)
    report = apply(wanted)
    assert report.ok, report.diagnostics
    time.sleep(3)
    assert not plan_of(wanted).todo
    held = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "state" not in p.parts}
    assert held == {a.path for a in wanted.artefacts}
    assert (folder / "etc/f0").read_text().startswith("three")
    assert {p.name for p in (folder / "state").iterdir()} <= {"manifest.json", "key", "audit.jsonl", "generations"}


@pytest.mark.parametrize("step", [1, 2])
def test_killed_before_a_step(server: Sshd, tmp_path: Path, step: int) -> None:
    folder = tmp_path / "far"
    assert apply(tree(replace(root_of(server, str(folder)), managers=()))).ok
    assert process(server, folder, **{CRASH: str(step)}).wait() in {-signal.SIGKILL, 0}
    as_the_last(server, folder)


@pytest.mark.parametrize("delay", [0.3, 1.5, 2.5])
def test_killed_while_ansible_runs(server: Sshd, tmp_path: Path, delay: float) -> None:
    """Ansible may go on without labctl: it must not put old files over those of the next apply."""
    folder = tmp_path / "far"
    assert apply(tree(replace(root_of(server, str(folder)), managers=()))).ok
    running = process(server, folder)
    staging = folder / "state/staging"
    while not staging.exists():
        assert running.poll() is None
        time.sleep(0.01)
    time.sleep(delay)
    running.kill()
    running.wait()
    as_the_last(server, folder)


def test_a_site_on_this_machine_needs_no_ansible(tmp_path: Path) -> None:
    root = HostRoot(host="near", root=str(tmp_path), state="state")
    site: Site = connect(root)
    assert not isinstance(placer_of(site, Courier()), AnsiblePlacer)
