"""Files are checked before the first is replaced; then each is replaced in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.artefact import HostRoot
from labctl.hosts.base import Check, HostError, Ran, Site
from labctl.hosts.checks import refusal
from labctl.hosts.local import LocalShell
from labctl.hosts.place import STAGING, DirectPlacer, Item, Load, new_staging, pack, staged
from labctl.hosts.playbooks.library.labctl_place import accepts, place

YES = Check(argv=("true",), code="LAB111", summary="no")
NO = Check(argv=("sh", "-c", "echo because >&2; exit 3"), code="LAB111", summary="refused")


def nothing() -> None:
    pass


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "state").mkdir()
    return Site(root=HostRoot(host="h", root=str(tmp_path), state="state"), shell=LocalShell(), folder=str(tmp_path))


def item(path: str, text: str = "new", mode: int = 0o640) -> Item:
    return Item(path=path, content=text.encode(), mode=mode)


def files(site: Site) -> dict[str, tuple[str, int]]:
    """Return what is below the root, with contents and modes."""
    found = sorted(p for p in Path(site.folder).rglob("*") if p.is_file())
    return {str(p.relative_to(site.folder)): (p.read_text(), p.stat().st_mode & 0o777) for p in found}


def by_hand(site: Site, load: Load) -> dict[str, str]:
    """The module itself, as Ansible runs it on the host."""
    staging = Path(load.staging)
    staging.mkdir(mode=0o700, parents=True)
    lock = site.state("lock")
    request = {
        "root": site.folder,
        "lock": {"path": lock, "content": Path(lock).read_text() if Path(lock).exists() else ""},
        "files": [{"path": i.path, "mode": i.mode} for i in load.items],
        "links": list(load.links),
        "checks": [{"argv": c.argv, "timeout": c.timeout, "names": c.names, "ignore": c.ignore} for c in load.checks],
    }
    for secret in (i for i in load.items if i.secret):
        place_at = staging / "tree" / secret.path
        place_at.parent.mkdir(parents=True)
        place_at.write_bytes(secret.content)
    answer = place(str(staging), pack(json.dumps(request).encode(), load.items))
    assert not Path(site.state(STAGING)).exists()
    if answer.get("refused"):
        said = answer["refused"]
        raise HostError(refusal(load.checks[said["check"]], Ran(said["code"], said["out"], said["err"])))
    return dict(answer["problems"])


def directly(site: Site, load: Load) -> dict[str, str]:
    """Through the shell, as on this machine."""
    return dict(DirectPlacer(site).place(load, nothing))


BOTH = pytest.mark.parametrize("bring", [directly, by_hand])
Bring = Callable[[Site, Load], dict[str, str]]


@BOTH
def test_files_get_their_content_and_mode_and_nothing_else_is_left(site: Site, bring: Bring) -> None:
    (Path(site.folder) / "a").write_text("old")
    load = Load(staging=new_staging(site), items=(item("a"), item("deep/er/b", "{{ x }}", 0o600)), checks=(YES,))
    assert bring(site, load) == {}
    assert files(site) == {"a": ("new", 0o640), "deep/er/b": ("{{ x }}", 0o600)}


@BOTH
def test_what_a_check_refuses_changes_nothing(site: Site, bring: Bring) -> None:
    (Path(site.folder) / "a").write_text("old")
    before = files(site)
    with pytest.raises(HostError, match="LAB111") as caught:
        bring(site, Load(staging=new_staging(site), items=(item("a"), item("b")), checks=(YES, NO)))
    assert "because" in caught.value.diagnostic.detail
    assert files(site) == before


@BOTH
def test_a_check_sees_the_new_files_beside_the_old_ones(site: Site, bring: Bring) -> None:
    (Path(site.folder) / "d").mkdir()
    (Path(site.folder) / "d/kept").write_text("kept")
    staging = new_staging(site)
    look = f"cd {staged(staging)}/d && cat kept new secret"
    check = Check(argv=("sh", "-c", f'[ "$({look})" = keptnews ]'), code="LAB111", summary="not seen")
    secret = Item(path="d/secret", content=b"s", mode=0o600, secret=True)
    load = Load(staging=staging, items=(item("d/new"), secret), links=("d/kept",), checks=(check,))
    assert bring(site, load) == {}
    assert files(site)["d/kept"][0] == "kept"
    assert files(site)["d/secret"] == ("s", 0o600)


@BOTH
def test_one_that_cannot_be_replaced_does_not_stop_the_others(site: Site, bring: Bring) -> None:
    (Path(site.folder) / "folder").mkdir()
    problems = bring(site, Load(staging=new_staging(site), items=(item("a"), item("folder"), item("b")), checks=(YES,)))
    assert list(problems) == ["folder"]
    assert {"a", "b"} <= files(site).keys()


def test_nothing_is_put_in_place_once_the_lock_has_changed_hands(site: Site) -> None:
    """What a killed labctl's Ansible may still be doing when the next apply has begun."""
    staging = Path(new_staging(site))
    staging.mkdir(mode=0o700, parents=True)
    Path(site.state("lock")).write_text("somebody else")
    request = {"root": site.folder, "lock": {"path": site.state("lock"), "content": "me"}, "links": [], "checks": []}
    answer = place(
        str(staging), pack(json.dumps({**request, "files": [{"path": "a", "mode": 420}]}).encode(), [item("a")])
    )
    assert answer["stale"]
    assert not (Path(site.folder) / "a").exists()


def test_an_old_files_owner_stays(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    path = Path(site.folder) / "a"
    path.write_text("old")
    os.chown(path, 1234, 1235)
    assert by_hand(site, Load(staging=new_staging(site), items=(item("a"),))) == {}
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_a_bundle_does_not_reach_out_of_its_folder(site: Site) -> None:
    staging = Path(new_staging(site))
    staging.mkdir(mode=0o700, parents=True)
    with pytest.raises(ValueError, match="outside"):
        place(str(staging), pack(b"{}", [item("../../outside")]))
    assert not staging.exists()


def test_staged_files_are_their_owners_alone(site: Site) -> None:
    staging = new_staging(site)
    modes = f'stat -c "%a" {site.state(STAGING)} {staging} {staged(staging)}/a; false'
    with pytest.raises(HostError) as caught:
        directly(
            site,
            Load(
                staging=staging,
                items=(item("a"),),
                checks=(Check(argv=("sh", "-c", modes), code="LAB111", summary="x"),),
            ),
        )
    assert caught.value.diagnostic.detail == "700\n700\n600"


@pytest.mark.parametrize(
    ("names", "ignore", "code", "err", "fine"),
    [
        ((), (), 0, "anything", True),
        ((), (), 1, "", False),
        (("a.service",), (), 0, "/x/a.service:3: Unknown key", False),
        (("a.service",), (), 1, "b.service: something", True),
        (("a.service",), ("/opt/new",), 1, "a.service: Command /opt/new is not executable", True),
        (("a.service",), (), 127, "", False),
    ],
)
def test_who_decides(names: tuple[str, ...], ignore: tuple[str, ...], code: int, err: str, *, fine: bool) -> None:
    assert accepts(names, ignore, code, err) is fine
