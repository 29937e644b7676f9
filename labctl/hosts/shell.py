"""``Shell`` over the agent's operations, for this machine and for others alike."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

from labctl.hosts.base import Me, Ran
from labctl.hosts.caller import Caller, Check, Values
from labctl.plan.observed import FileType, SeenFile


class AgentShell:
    """``Shell`` by means of a ``Caller``."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._facts: Values | None = None

    def call(
        self,
        operation: str,
        values: Values,
        *,
        body: bytes = b"",
        event: Callable[[Values], None] | None = None,
        check: Check | None = None,
    ) -> Values:
        """Carry out an operation of the agent that takes long: see ``labctl.agent``."""
        told = None if event is None else (lambda data, _: event(data))
        return self.caller.call(operation, values, body, event=told, check=check).values

    def me(self) -> Me:
        """Return who works on the host."""
        return self.caller.me()

    def facts(self, folder: str) -> Values:
        """Return what the host is. It is asked once: cards and memory do not change while labctl runs."""
        if self._facts is None:
            self._facts = self.caller.call("facts", {"paths": [folder]}).values
        return self._facts

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        """Run a program."""
        values = {"argv": list(argv), "timeout": timeout, "env": dict(env or {}), "cwd": cwd}
        done = self.caller.call("run", values, stdin)
        out, err = done.body[: done.values["out"]], done.body[done.values["out"] :]
        return Ran(done.values["code"], out.decode(errors="replace"), err.decode(errors="replace"))

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """Yield a program's lines; closing the iterator ends it."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        chunks = self.caller.events("stream", {"argv": list(argv)})
        try:
            for chunk in chunks:
                *lines, rest = (rest + decoder.decode(chunk)).split("\n")
                yield from lines
        finally:
            if isinstance(chunks, Generator):
                chunks.close()
        rest += decoder.decode(b"", final=True)
        if rest:
            yield rest

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""
        found = self.caller.call("read", {"path": path})
        return found.body if found.values["there"] else None

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Replace a file."""
        self.caller.call("write", {"path": path, "mode": mode}, content)

    def append(self, path: str, content: bytes) -> None:
        """Add to a file's end."""
        self.caller.call("append", {"path": path}, content)

    def look(self, paths: Iterable[str], *, digest: Callable[[str, SeenFile], bool]) -> Mapping[str, SeenFile]:
        """Look at many paths: once for what they are, and once more for the digests that are wanted."""
        found = self._look(list(paths), [])
        wanted = [p for p, seen in found.items() if seen.type is FileType.FILE and digest(p, seen)]
        return {**found, **self._look(wanted, wanted)} if wanted else found

    def _look(self, paths: Sequence[str], digest: Sequence[str]) -> dict[str, SeenFile]:
        seen = self.caller.call("look", {"paths": paths, "digest": digest}).values["found"]
        return {path: SeenFile(**{**values, "type": FileType(values["type"])}) for path, values in seen.items()}

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files."""
        listed = list(paths)
        if listed:
            self.caller.call("remove", {"paths": listed})

    def make_folders(self, path: str) -> tuple[str, ...]:
        """Make missing folders."""
        return tuple(self.caller.call("make_folders", {"path": path}).values["made"])

    def remove_empty(self, path: str) -> bool:
        """Remove an empty folder."""
        return bool(self.caller.call("remove_empty", {"path": path}).values["gone"])

    def swap(self, path: str, expected: bytes | None, content: bytes | None) -> bool:
        """Compare and replace."""
        lengths = {"expected": _length(expected), "content": _length(content)}
        done = self.caller.call("swap", {"path": path, **lengths}, (expected or b"") + (content or b""))
        return bool(done.values["swapped"])

    def alive(self, process: str) -> bool:
        """Whether a process of this name runs."""
        return bool(self.caller.call("alive", {"name": process}).values["alive"])

    def whoami(self) -> str:
        """Return the name of the process that works on the host."""
        return self.caller.me().process

    def probe(self, url: str, timeout: float) -> int | None:
        """Ask a URL from the host."""
        status: int | None = self.caller.call("probe", {"url": url, "timeout": timeout}).values["status"]
        return status

    def free_bytes(self, path: str) -> int:
        """Return the free space below a folder."""
        return int(self.caller.call("free", {"path": path}).values["bytes"])


def _length(content: bytes | None) -> int | None:
    return None if content is None else len(content)
