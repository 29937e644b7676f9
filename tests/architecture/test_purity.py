"""Everything up to the plan is pure: no clock, no chance, no environment, no file, no network.

The same lab.yaml gives the same bytes on every machine. What has to touch the world stands in ``ROOMS``, by name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source import modules, tree

ROOMS = {
    "__main__.py": "the program",
    "agent": "runs on the hosts",
    "cli": "options, the terminal",
    "hosts": "looks at hosts and changes them",
    "kube": "looks at clusters and changes them",
    "client": "talks to the running lab",
    "swap": "a server",
    "embedded": "servers",
    "run_env.py": "a program",
    "secrets.py": "reads secrets when they are applied",
    "assets.py": "finds templates and blueprints",
    "blueprints.py": "copies a blueprint into a new folder",
    "operate.py": "apply, destroy, status: what changes hosts",
    "saved.py": "reads and writes saved plans",
    "folder.py": "writes a rendered tree into a folder",
    "lockfile.py": "reads and writes lab.lock.yaml",
    "locking.py": "asks hosts for their model files",
    "lockread.py": "reads model headers, sizes and digests",
    "lastknown.py": "keeps what was last seen of the hosts",
    "secret_names.py": "sees whether an .env file is there",
    "document/read.py": "reads the lab's files",
    "gateways/builtin/sources.py": "reads the gateway's own modules, which are shipped to its host",
    "gateways/litellm/shipped/labctl_auth.py": "runs inside LiteLLM",
    "gateways/litellm/shipped/labctl_keys.py": "runs beside LiteLLM, as a task",
    "values.py": "defines the `__hash__` of values, which no output depends on",
    "vram/metadata/sources.py": "reads model headers",
    "vram/metadata/http.py": "reads model headers by HTTP",
}
"""Modules and packages that may do input and output, with the reason."""

SHIPPED = {
    "compat/tables.py": "the tables of facts",
    "explain.py": "the pages of the diagnostic codes",
    "gateways/litellm/tasks.py": "the scripts that run inside LiteLLM",
    "gateways/litellm/known_keys.py": "the keys that LiteLLM knows",
    "targets/k3s/storage.py": "the script that fetches model files in a cluster",
    "vram/metadata/catalogue.py": "the built-in models",
    "vram/metadata/layout.py": "the tensor layouts of model families",
}
"""Modules that read files of the package itself, which are as constant as the code."""

MODULES = frozenset(
    {
        "asyncio",
        "ftplib",
        "getpass",
        "glob",
        "http",
        "httpx",
        "multiprocessing",
        "platform",
        "random",
        "requests",
        "secrets",
        "select",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib3",
        "urllib.request",
        "uuid",
        "webbrowser",
    }
)
METHODS = frozenset(
    {
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "open",
        "iterdir",
        "rglob",
        "unlink",
        "mkdir",
        "rmdir",
        "touch",
        "is_file",
        "is_dir",
        "exists",
        "stat",
        "resolve",
        "expanduser",
        "cwd",
        "home",
        "samefile",
        "readlink",
        "getenv",
    }
)
VALUES = frozenset(
    {
        "os.environ",
        "os.getenv",
        "os.getcwd",
        "os.listdir",
        "os.path",
        "sys.argv",
        "sys.stdin",
        "sys.stdout",
        "sys.stderr",
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
    }
)
CALLS = frozenset({"open", "print", "input", "hash"})
"""``hash`` of a text differs from run to run."""


def pure_modules() -> list[Path]:
    return [m for m in modules() if not _listed(m, ROOMS)]


def _listed(module: Path, names: dict[str, str]) -> bool:
    return module.as_posix() in names or module.parts[0] in names


def impurities(module: Path) -> Iterator[str]:
    for node in ast.walk(tree(module)):
        yield from (f"line {getattr(node, 'lineno', 0)}: {what}" for what in _impure(node))


def _impure(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"import {a.name}" for a in node.names if a.name in MODULES or a.name.split(".")[0] in MODULES)
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        names = (node.module, node.module.split(".")[0], *(f"{node.module}.{a.name}" for a in node.names))
        yield from (f"from {node.module} import …" for n in names[:1] if MODULES & set(names))
    if isinstance(node, ast.Attribute) and any(ast.unparse(node).endswith(value) for value in VALUES):
        yield ast.unparse(node)
    if isinstance(node, ast.Call):
        yield from _impure_call(node.func)


def _impure_call(func: ast.expr) -> Iterator[str]:
    if isinstance(func, ast.Name) and func.id in CALLS:
        yield f"{func.id}()"
    if isinstance(func, ast.Attribute) and func.attr in METHODS:
        yield f"{ast.unparse(func)}()"


@pytest.mark.parametrize("module", pure_modules(), ids=str)
def test_pure(module: Path) -> None:
    found = list(impurities(module))
    if _listed(module, SHIPPED):
        found = [f for f in found if "read_text" not in f]
    assert not found, f"{module} is no room for input and output (see ROOMS): {found}"


@pytest.mark.parametrize("name", [*ROOMS, *SHIPPED])
def test_exceptions_are_needed(name: str) -> None:
    """A room that vanished, or became pure, leaves the list."""
    inside = [m for m in modules() if m.as_posix() == name or m.parts[0] == name]
    if not inside and name == "client":
        pytest.skip(f"{name} is still to come")
    assert any(list(impurities(m)) for m in inside), f"{name} needs no exception any more"


@pytest.mark.parametrize(
    "code",
    [
        "import random",
        "import os.path, subprocess",
        "from urllib.request import urlopen",
        "from http import client",
        "import secrets",
        "os.environ['HOME']",
        "datetime.now(tz=UTC)",
        "datetime.datetime.now()",
        "open('x')",
        "Path('x').read_text()",
        "folder.joinpath('x').open()",
        "hash('x')",
    ],
)
def test_what_counts_as_impure(code: str) -> None:
    assert any(list(_impure(node)) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "from labctl.secrets import Secret",
        "from labctl import secrets",
        "import re, json",
        "resolve(lab)",
        "x.now",
        "import os",
    ],
)
def test_what_counts_as_pure(code: str) -> None:
    assert not any(list(_impure(node)) for node in ast.walk(ast.parse(code)))
