"""What labctl has to know of a ``supervisord.conf``: where the daemon listens and what it writes."""

from __future__ import annotations

import configparser
import re
from typing import Final

from labctl.values import dataclass

_DATA: Final = re.compile(r'\bLABCTL_DATA="([A-Za-z0-9_-]+)"')
_ELSEWHERE: Final = frozenset({"", "NONE", "AUTO", "syslog"})


@dataclass(frozen=True, slots=True)
class SupervisorConf:
    """A configuration file's paths, absolute. A file that cannot be read has none of them, and a ``problem``.

    Attributes:
        folder: the daemon's working folder, where relative paths start.
        here: the file's own folder, for ``%(here)s``.
    """

    parsed: configparser.RawConfigParser
    folder: str
    here: str
    problem: str = ""

    @classmethod
    def read(cls, content: bytes, folder: str, project: str) -> SupervisorConf:
        """Read a file's content; ``project`` is its path below ``folder``."""
        parsed = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=True)
        problem = ""
        try:
            parsed.read_string(content.decode())
        except (configparser.Error, UnicodeDecodeError) as error:
            problem = str(error)
        return cls(parsed, folder, f"{folder}/{project.rpartition('/')[0]}".rstrip("/"), problem)

    @property
    def socket(self) -> str:
        """Where the daemon listens, "" for nowhere."""
        return self._path("unix_http_server", "file")

    @property
    def pidfile(self) -> str:
        """Where the daemon writes its number, "" for its default."""
        return self._path("supervisord", "pidfile")

    @property
    def logfile(self) -> str:
        """The daemon's own log, "" for its default."""
        return self._path("supervisord", "logfile")

    @property
    def logs(self) -> tuple[str, ...]:
        """Every log file that is named, sorted."""
        keys = ("logfile", "stdout_logfile", "stderr_logfile")
        found = {self._path(section, key) for section in self.parsed.sections() for key in keys}
        return tuple(sorted(found - {""}))

    @property
    def log_folders(self) -> tuple[str, ...]:
        """The folders of all logs, sorted."""
        child = self._path("supervisord", "childlogdir")
        return tuple(sorted({log.rpartition("/")[0] for log in self.logs} | ({child} if child else set())))

    @property
    def data(self) -> tuple[str, ...]:
        """The folders that programs call their data (``LABCTL_DATA``), sorted; only such below the daemon's folder."""
        named = (self.parsed.get(section, "environment", fallback="") for section in self.parsed.sections())
        found = {match[1] for text in named for match in [_DATA.search(text)] if match}
        return tuple(sorted(f"{self.folder}/{name}" for name in found))

    def logs_of(self, program: str) -> tuple[str, ...]:
        """Return a program's log files, standard output first."""
        paths = [self._path(f"program:{program}", key) for key in ("stdout_logfile", "stderr_logfile")]
        return tuple(dict.fromkeys(p for p in paths if p))

    def _path(self, section: str, key: str) -> str:
        value = self.parsed.get(section, key, fallback="")
        if value in _ELSEWHERE or value.startswith("/dev/"):
            return ""
        value = value.replace("%(here)s", self.here)
        return value if value.startswith("/") else f"{self.folder}/{value}"
