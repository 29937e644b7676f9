"""Secrets: where their values come from, and a type that never shows them.

Values are read only when something is applied. ``Secret`` prints as ``***`` everywhere; ``reveal`` is called by the
writer of secret files alone. ``Redactor`` masks values in whatever other programs print.
"""

from __future__ import annotations

import json
import os
import secrets as random
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final, NoReturn, Protocol

from labctl.diagnostics import Diagnostic, LabctlError, Result, Severity, Span
from labctl.dotenv import DotenvError, parse_dotenv
from labctl.values import dataclass
from labctl.workload import SecretText

MASK: Final = "***"
COMMAND_TIMEOUT: Final = 60
"""Seconds that a secret command may take: it may ask for a touch or a passphrase."""
GENERATED_BYTES: Final = 32
SHORTEST_MASKED: Final = 4
"""Shorter values are not masked in output: they would turn every log into asterisks."""


class Secret:
    """A value that does not show itself. Equality compares values; it cannot be hashed, pickled or formatted."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value. Only for the code that writes it to where it is needed."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and random.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a hash of a value says something about it

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        message = "a secret is not to be copied out of the process"
        raise TypeError(message)


@dataclass(frozen=True, slots=True)
class Secrets:
    """The values of all sources, by name."""

    values: Mapping[str, Secret] = field(default_factory=dict)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``names`` that have no value or an empty one, sorted."""
        return tuple(sorted({n for n in names if not self.values.get(n)}))

    def join(self, text: SecretText) -> str:
        """Return the text with its secrets filled in. KeyError for a name without a value."""
        return "".join(p if isinstance(p, str) else self.values[p.name].reveal() for p in text.parts)

    def redactor(self) -> Redactor:
        """Return what masks these values in other programs' output."""
        return Redactor(tuple(s.reveal() for s in self.values.values()))


class Redactor:
    """Masks known values in text, the longest first so that no part of a longer one stays behind."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[str] = ()) -> None:
        spelled = {form for v in values if len(v) >= SHORTEST_MASKED for form in _spellings(v)}
        self._values = tuple(sorted(spelled, key=lambda v: (-len(v), v)))

    def __call__(self, text: str) -> str:
        """Return the text with every known value as ``***``."""
        for value in self._values:
            text = text.replace(value, MASK)
        return text

    def __repr__(self) -> str:
        return f"Redactor({len(self._values)} values)"


def _spellings(value: str) -> Iterator[str]:
    """The forms in which programs print a value: as it is, inside JSON, inside a quoted env file."""
    yield value
    yield json.dumps(value)[1:-1]
    yield value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")


class Source(Protocol):
    """Where values come from."""

    def names(self) -> Result[frozenset[str]]:
        """Return the names it offers without reading a value where that is possible."""
        ...

    def load(self) -> Result[Mapping[str, Secret]]:
        """Return all its values."""
        ...


@dataclass(frozen=True, slots=True)
class EnvFile:
    """A ``.env`` file. A file that others may read gives a warning; one that is missing, an error."""

    path: Path

    def names(self) -> Result[frozenset[str]]:
        """Return the names in the file."""
        loaded = self.load()
        return Result(None if loaded.value is None else frozenset(loaded.value), loaded.diagnostics)

    def load(self) -> Result[Mapping[str, Secret]]:
        """Read the file."""
        try:
            text = self.path.read_text()
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except (OSError, UnicodeDecodeError) as error:
            return Result(None, (self._unreadable(error),))
        try:
            values = parse_dotenv(text)
        except DotenvError as error:
            return Result(None, (_syntax(error, str(self.path)),))
        warnings = (self._too_open(mode),) if mode & 0o077 else ()
        return Result(_wrap(values), warnings)

    def _unreadable(self, error: Exception) -> Diagnostic:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return Diagnostic(
            code="LAB090",
            summary=f"the secrets file `{self.path}` cannot be read: {what}",
            path=("secrets", "from"),
            hint="create it with one NAME=value per line, or name another file at `secrets.from`",
        )

    def _too_open(self, mode: int) -> Diagnostic:
        return Diagnostic(
            code="LAB092",
            severity=Severity.WARNING,
            summary=f"other users of this machine may read `{self.path}` (mode {mode:04o})",
            path=("secrets", "from"),
            hint=f"run: chmod 600 {self.path}",
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of labctl itself. Only the wanted names are taken."""

    wanted: frozenset[str]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def names(self) -> Result[frozenset[str]]:
        """Return the wanted names that are set."""
        return Result(frozenset(self.wanted & self.environ.keys()))

    def load(self) -> Result[Mapping[str, Secret]]:
        """Return the values of the wanted names that are set."""
        return Result(_wrap({n: self.environ[n] for n in sorted(self.wanted) if n in self.environ}))


@dataclass(frozen=True, slots=True)
class Command:
    """A program that prints dotenv lines or one flat JSON object: ``sops``, ``pass``, ``op``. Run without a shell."""

    argv: tuple[str, ...]
    folder: Path | None = None

    def names(self) -> Result[frozenset[str]]:
        """Return the names that the program prints: it has to run for that."""
        loaded = self.load()
        return Result(None if loaded.value is None else frozenset(loaded.value), loaded.diagnostics)

    def load(self) -> Result[Mapping[str, Secret]]:
        """Run the program."""
        try:
            done = subprocess.run(
                self.argv, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False, cwd=self.folder
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Result(None, (self._failed(_why(error)),))
        if done.returncode != 0:
            return Result(None, (self._failed(f"exit status {done.returncode}"),))
        try:
            return Result(_wrap(parse_output(done.stdout.decode())))
        except DotenvError as error:
            return Result(None, (_syntax(error, f"output of `{self.argv[0]}`"),))
        except UnicodeDecodeError:
            return Result(None, (self._failed("it did not print UTF-8 text"),))

    def _failed(self, why: str) -> Diagnostic:
        return Diagnostic(
            code="LAB093",
            summary=f"the secrets command `{self.argv[0]}` failed: {why}",
            path=("secrets", "command"),
            hint="run it by hand; it has to print NAME=value lines or one JSON object of texts",
        )


def parse_output(text: str) -> Mapping[str, str]:
    """Read dotenv lines or a flat JSON object. DotenvError, without any value, when it is neither."""
    if not text.lstrip().startswith("{"):
        return parse_dotenv(text)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg}"
        raise DotenvError(message, error.lineno, error.colno) from None
    wrong = [str(k) for k, v in value.items() if not isinstance(v, str | int) or isinstance(v, bool)]
    if wrong:
        message = f"`{wrong[0]}` is not a text"
        raise DotenvError(message, 1, 1)
    return {str(k): str(v) for k, v in value.items()}


@dataclass(frozen=True, slots=True)
class Generated:
    """Values that labctl makes up once and keeps in a file of its own, mode 0600."""

    path: Path
    wanted: frozenset[str]

    def names(self) -> Result[frozenset[str]]:
        """Return the names that it makes up when asked."""
        return Result(self.wanted)

    def load(self) -> Result[Mapping[str, Secret]]:
        """Return the kept values, adding and keeping those that are new. Names that are no longer wanted stay."""
        kept: Mapping[str, Secret] = {}
        if self.path.exists():
            loaded = EnvFile(self.path).load()
            if loaded.value is None:
                return loaded
            kept = loaded.value
        new = {n: Secret("sk-" + random.token_urlsafe(GENERATED_BYTES)) for n in sorted(self.wanted - kept.keys())}
        if new:
            self._keep({**kept, **new})
        return Result({n: s for n, s in {**kept, **new}.items() if n in self.wanted})

    def _keep(self, values: Mapping[str, Secret]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.labctl")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("# Made up by labctl, once. Keep this file: what runs was started with these values.\n")
            file.writelines(f"{name}={secret.reveal()}\n" for name, secret in sorted(values.items()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def load(sources: Sequence[Source]) -> Result[Secrets]:
    """Read all sources; for a name in several, the first source wins."""
    values: dict[str, Secret] = {}
    diagnostics: list[Diagnostic] = []
    for source in sources:
        loaded = source.load()
        diagnostics += loaded.diagnostics
        for name, secret in (loaded.value or {}).items():
            values.setdefault(name, secret)
    return Result(Secrets(values), tuple(diagnostics))


def require(secrets: Secrets, names: Iterable[str]) -> None:
    """LabctlError with one LAB094 per name that has no value."""
    missing = secrets.missing(names)
    if missing:
        raise LabctlError(
            Diagnostic(
                code="LAB094",
                summary=f"the secret `{name}` has no value",
                path=("secrets",),
                hint=f"add a line `{name}=…` to the secrets source, or set it in the environment",
            )
            for name in missing
        )


def _wrap(values: Mapping[str, str]) -> Mapping[str, Secret]:
    return {name: Secret(value) for name, value in values.items()}


def _syntax(error: DotenvError, where: str) -> Diagnostic:
    span = Span(where, error.line, error.column, error.line, error.column + 1)
    return Diagnostic(
        code="LAB091",
        summary=f"{where}, line {error.line}: {error.message}",
        span=span,
        hint='write NAME=value, or NAME="value" where the value has spaces, quotes or #',
    )


def _why(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {COMMAND_TIMEOUT} s"
    return error.strerror or str(error)
