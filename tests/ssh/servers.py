"""Real OpenSSH servers on loopback addresses, with keys and a known_hosts file of their own.

Nothing of ``~/.ssh`` is read or written. Each server logs in the user who runs the tests; as root, other users too.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SSHD = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if Path(p).exists()), None)
SSH = shutil.which("ssh")
GUARD = Path(__file__).with_name("guard")
PATIENCE = 20.0

MISSING = "OpenSSH's server and client are not installed: apt-get install openssh-server openssh-client"


def have_sshd() -> bool:
    return SSHD is not None and SSH is not None


@dataclass
class Sshd:
    """One server."""

    folder: Path
    address: str
    port: int
    settings: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    """Words before sshd's own, e.g. those that give it a file system of its own."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> Path:
        return self.folder / "host_key"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def new_key(self) -> None:
        for path in (self.key, self.key.with_suffix(".pub")):
            path.unlink(missing_ok=True)
        make_key(self.key)

    def known_line(self) -> str:
        kind, key, *_ = self.key.with_suffix(".pub").read_text().split()
        return f"[{self.address}]:{self.port} {kind} {key}\n"

    def start(self) -> None:
        lines = [
            f"ListenAddress {self.address}:{self.port}",
            f"HostKey {self.key}",
            f"AuthorizedKeysFile {self.folder.parent / 'client.pub'}",
            f"PidFile {self.folder / 'pid'}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "MaxStartups 100",
            "LogLevel VERBOSE",
            *self.settings,
        ]
        config = self.folder / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        argv = [*self.within, str(SSHD), "-D", "-e", "-f", str(config)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)

    def await_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((self.address, self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError(self.log)

    def stop(self) -> None:
        """End the server and every connection that it has."""
        if self.process is None:
            return
        for child in descendants(self.process.pid):
            kill(child)
        self.process.kill()
        self.process.wait()
        self.process = None

    def drop_connections(self) -> None:
        """End every connection, but not the server: what a host that loses power looks like."""
        if self.process is not None:
            for child in descendants(self.process.pid):
                kill(child)


@dataclass
class Net:
    """Servers, and a client that knows them."""

    folder: Path
    servers: list[Sshd] = field(default_factory=list)

    @classmethod
    def make(cls) -> Net:
        """Return one in a folder with a short name: sockets live in it."""
        folder = Path(tempfile.mkdtemp(prefix="lc-", dir="/tmp"))
        (folder / "run").mkdir(mode=0o700)
        make_key(folder / "client")
        net = cls(folder)
        net.known_hosts.touch()
        net.config.write_text(
            f"UserKnownHostsFile {net.known_hosts}\n"
            "GlobalKnownHostsFile none\n"
            "IdentityAgent none\n"
            f"IdentityFile {folder / 'client'}\n"
            "IdentitiesOnly yes\n"
            "UpdateHostKeys no\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        return net

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LABCTL_SSH": str(GUARD),
            "LABCTL_TEST_SSH_CONFIG": str(self.config),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
        }

    def serve(self, *settings: str, known: bool = True, within: tuple[str, ...] = ()) -> Sshd:
        """Start a server on the next address; ``known`` puts its key into known_hosts."""
        number = len(self.servers) + 2
        folder = self.folder / f"s{number}"
        folder.mkdir()
        server = Sshd(folder, f"127.0.0.{number}", free_port(f"127.0.0.{number}"), settings, within)
        server.new_key()
        if known:
            with self.known_hosts.open("a") as file:
                file.write(server.known_line())
        server.start()
        self.servers.append(server)
        server.await_ready()
        return server

    def hang_up(self) -> None:
        """End the connections that are kept for the next command."""
        for socket_ in (self.folder / "run" / "labctl").glob("*"):
            subprocess.run(
                [str(SSH), "-o", f"ControlPath={socket_}", "-O", "exit", "-F", "none", "x"],
                capture_output=True,
                check=False,
            )

    def close(self) -> None:
        self.hang_up()
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def own_users(folder: Path, password: str, sudoers: str) -> tuple[str, ...]:
    """Return words that run a program with a user ``lab`` and rules for sudo that exist for it alone.

    The files of /etc are covered in a mount namespace; the machine's own are not touched.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, 54321, 54321)
    for path in (folder, folder.parent):
        path.chmod(0o755)
    (folder.parent / "client.pub").chmod(0o644)
    digest = subprocess.run(["openssl", "passwd", "-6", password], capture_output=True, text=True, check=True).stdout
    files = {
        "passwd": Path("/etc/passwd").read_text() + f"lab:x:54321:54321::{home}:/bin/sh\n",
        "group": Path("/etc/group").read_text() + "lab:x:54321:\n",
        "shadow": Path("/etc/shadow").read_text() + f"lab:{digest.strip()}:19000:0:99999:7:::\n",
        "sudoers": f"Defaults lecture=never\n{sudoers}\n",
    }
    mounts = []
    for name, text in files.items():
        file = folder / f"etc-{name}"
        file.write_text(text)
        file.chmod(0o440 if name == "sudoers" else 0o644)
        mounts.append(f"mount --bind {file} /etc/{name}")
    return ("unshare", "--mount", "sh", "-c", f'{" && ".join(mounts)} && exec "$@"', "sh")


def can_have_own_users() -> bool:
    """Whether this user may cover files of /etc for a program, and sudo is there to be tried."""
    tools = all(shutil.which(tool) for tool in ("unshare", "sudo", "openssl", "mount"))
    tried = ["unshare", "--mount", "mount", "--bind", "/etc/passwd", "/etc/group"]
    return tools and os.geteuid() == 0 and subprocess.run(tried, capture_output=True, check=False).returncode == 0


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    """Return the processes below one, from /proc."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [p for child in children for p in (*descendants(int(child)), int(child))]


def kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
