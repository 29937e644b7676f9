"""A lab on three hosts from nothing to nothing; each test goes on from the last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import ask, chat, said
from tests.e2e.remote.home import Home, home, lab
from tests.rig.rig import Rig

pytestmark = pytest.mark.slow
ALPHA, BETA, GAMMA, NEWS = "I am alpha", "Greetings from beta", "Gamma is new here", "Alpha says other words now"
KEY, OTHER = "sk-the-first-key", "sk-the-second-key"
FIRST = {"alpha": ("one", ALPHA), "beta": ("two", BETA)}


class Story:
    """The lab's home, what lay on the hosts before, and how to ask its gateway."""

    def __init__(self, where: Home) -> None:
        self.home = where
        self.before = {host: where.left(host) for host in ("one", "two", "three")}

    def answers(self, model: str, key: str = KEY) -> str:
        url = f"http://{self.home.address('three')}:4000"
        return said(ask(url, key, "/v1/chat/completions", chat(model)))

    def write(self, **servers: tuple[str, str]) -> None:
        self.home.write(lab(self.home.rig, servers, gateway="three"))


@pytest.fixture(scope="module")
def story(rig: Rig) -> Iterator[Story]:
    with home(rig, lab(rig, FIRST, gateway="three"), {"LITELLM_MASTER_KEY": KEY}) as made:
        told = Story(made)
        yield told
        made.run("destroy", "--yes", "--data")


def test_the_plan_for_bare_hosts(story: Story) -> None:
    assert story.home.units() == {"create alpha@one", "create beta@two", "create gateway@three"}
    assert story.home.running() == {}


def test_applied_from_nothing_it_answers_across_hosts(story: Story) -> None:
    story.home.apply()
    assert set(story.home.running()) == {"alpha@one", "beta@two", "gateway@three"}
    assert ALPHA in story.answers("alpha")
    assert BETA in story.answers("beta")
    assert {ALPHA in story.answers("chat") for _ in range(20)} == {True, False}


def test_applied_again_it_changes_nothing(story: Story) -> None:
    with story.home.exactly():
        story.home.settled()
        assert "no changes" in story.home.apply().out
        assert story.home.ok("status").code == ExitCode.OK


def test_a_deployment_is_added(story: Story) -> None:
    story.write(**FIRST, gamma=("two", GAMMA))
    assert story.home.units() == {"create gamma@two", "restart gateway@three"} or story.home.units() == {
        "create gamma@two",
        "replace gateway@three",
    }
    with story.home.exactly("gateway@three", new=("gamma@two",)):
        story.home.apply()
    assert GAMMA in story.answers("gamma")


def test_a_model_is_changed(story: Story) -> None:
    story.write(alpha=("one", NEWS), beta=FIRST["beta"], gamma=("two", GAMMA))
    with story.home.exactly("alpha@one"):
        story.home.apply()
    assert NEWS in story.answers("alpha")


def test_a_deployment_moves(story: Story) -> None:
    story.write(alpha=("one", NEWS), beta=("one", BETA), gamma=("two", GAMMA))
    assert {"create beta@one", "delete beta@two"} <= story.home.units()
    with story.home.exactly("gateway@three", new=("beta@one",), gone=("beta@two",)):
        story.home.apply()
    assert BETA in story.answers("beta")


def test_a_deployment_is_removed(story: Story) -> None:
    story.write(alpha=("one", NEWS), beta=("one", BETA))
    with story.home.exactly("gateway@three", gone=("gamma@two",)):
        story.home.apply()
    assert not [path for path in story.home.left("two") if "gamma" in path]
    story.write(alpha=("one", NEWS), beta=("two", BETA))
    story.home.apply()
    story.home.settled()


def test_drift_of_three_kinds_is_shown_and_repaired(story: Story) -> None:
    rig = story.home.rig
    before = story.home.running()
    rig.sh("lab3", "sed -i 's/num_retries: 2/num_retries: 7/' /opt/labctl/rig/gateway/config.yaml")
    rig.sh("lab1", "docker stop --time 1 rig-alpha")
    rig.sh("lab2", "systemctl stop labctl-rig-beta; rm /etc/systemd/system/labctl-rig-beta.service")
    shown = story.home.run("plan", "--diff", "--detailed-exitcode")
    assert shown.code == ExitCode.CHANGES
    assert "num_retries: 7" in shown.out
    assert {what.partition(" ")[2] for what in story.home.units()} == {"alpha@one", "beta@two", "gateway@three"}
    story.home.apply()
    after = story.home.running()
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)
    story.home.settled()
    assert NEWS in story.answers("alpha")


def test_a_new_secret_restarts_only_who_uses_it(story: Story) -> None:
    (story.home.lab / ".env").write_text(f"LITELLM_MASTER_KEY={OTHER}\n")
    with story.home.exactly("gateway@three"):
        story.home.apply()
    assert NEWS in story.answers("alpha", OTHER)
    url = f"http://{story.home.address('three')}:4000"
    assert ask(url, KEY, "/v1/chat/completions", chat("alpha")).status_code == 401


def test_rolling_back_a_host(story: Story) -> None:
    """What the host had before its last change comes back, and the next apply brings the new again."""
    for says in (NEWS, ALPHA):
        story.write(alpha=("one", says), beta=("two", BETA))
        story.home.apply()
    key = (story.home.lab / ".env").read_text().strip().partition("=")[2]
    with story.home.exactly("alpha@one"):
        story.home.ok("rollback", "one", "--yes")
    assert NEWS in story.answers("alpha", key)
    assert {what.partition(" ")[2] for what in story.home.units()} == {"alpha@one"}
    story.home.apply()
    assert ALPHA in story.answers("alpha", key)


def test_destroy_leaves_nothing(story: Story) -> None:
    story.home.ok("destroy", "--yes", "--data")
    assert story.home.running() == {}
    for host, before in story.before.items():
        assert story.home.left(host) - before == set(), host
    left = [path for path in (story.home.folder / "tmp").rglob("*") if path.is_file()]
    assert left == []
