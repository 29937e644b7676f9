"""Units of a user's own manager, applied by a user who is not root and has no session, as over SSH."""

from __future__ import annotations

import json
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.inside.labs import VALUE, ask, out

USER = "lab"
BIN = Path("/tmp/user-units")
LOGINCTL = """#!/bin/sh
case "$*" in
  show-user*) cat /tmp/user-units/linger;;
  *) echo "Could not enable linger: Access denied" >&2; exit 1;;
esac
"""
"""A stand-in: logind inside a container inside a container cannot do this. The user's manager is a real one."""
DROP_IN = Path("/run/systemd/system/user@.service.d/rig.conf")
"""What pam_systemd does for the manager, and the rig's hosts do not have."""


def as_user(what: str) -> dict[str, Any]:
    """Have the user do it, with as little in the environment as a login without pam_systemd has."""
    variables = [f"PATH={BIN}:/usr/bin:/bin", "PYTHONPATH=/srv/labctl:/srv/site", "PYTHONDONTWRITEBYTECODE=1"]
    home = pwd.getpwnam(USER).pw_dir
    argv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "env", "-i", *variables]
    argv += [f"HOME={home}", "LABCTL_RIG_INSIDE=1", "python3", "-m", "tests.rig.inside.as_user", what]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/srv/labctl")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def manager(state: str) -> None:
    uid = pwd.getpwnam(USER).pw_uid
    out("systemctl", state, f"user@{uid}.service")
    if state == "start":
        bus = Path(f"/run/user/{uid}/systemd/private")
        for _ in range(100):
            if bus.exists():
                return
            time.sleep(0.1)


def linger(state: str) -> None:
    (BIN / "linger").write_text(f"{state}\n")


@pytest.fixture
def nobody_logged_in() -> Iterator[None]:
    BIN.mkdir(exist_ok=True)
    (BIN / "loginctl").write_text(LOGINCTL)
    (BIN / "loginctl").chmod(0o755)
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text("[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n")
    out("systemctl", "daemon-reload")
    linger("no")
    manager("stop")
    yield
    linger("yes")
    manager("start")
    as_user("destroy")
    manager("stop")
    DROP_IN.unlink()
    out("systemctl", "daemon-reload")


@pytest.mark.usefixtures("nobody_logged_in")
def test_units_of_a_user() -> None:
    assert as_user("plan") == {"complete": False, "codes": ["LAB105"]}

    manager("start")  # as a login with pam_systemd does; it ends with the login
    refused = as_user("apply")
    assert "LAB105" in refused["codes"], "without polkit a user cannot keep his manager running by himself"
    assert any("loginctl enable-linger" in hint for hint in refused["hints"])

    linger("yes")
    applied = as_user("apply")
    assert applied["ok"], applied
    assert applied["runtime"] is None
    assert applied["answer"] == VALUE
    assert applied["todo"] == []
    folder = Path(pwd.getpwnam(USER).pw_dir)
    assert (folder / ".config/labctl/rig/secrets/web/key").stat().st_mode & 0o777 == 0o600
    time.sleep(1)
    assert ask(8301) == VALUE
    gone = as_user("destroy")
    assert gone["ok"], gone
    assert not (folder / ".config/labctl").exists()
