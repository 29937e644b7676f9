"""The problems of a gateway block that its schema cannot see."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.diagnostics import Diagnostic
from labctl.gateways import GATEWAYS, load
from labctl.gateways.litellm import gateway
from labctl.gateways.litellm.known_keys import SECTIONS
from labctl.model.literal import secret_problems
from labctl.workload import Endpoint, Task
from tests.gateways.labs import block, endpoint

CHAT = endpoint("chat", "chat-large", "chat")
EMBED = endpoint("embed", "embed", task=Task.EMBED)


def found(*endpoints: Endpoint, databases: tuple[str, ...] = (), **keys: Any) -> list[Diagnostic]:
    return list(gateway.check(block(**keys), endpoints or (CHAT, EMBED), databases))


def test_registry() -> None:
    assert [load(name).name for name in GATEWAYS] == ["litellm", "builtin", "llama-swap", "llama-router"]


def test_a_good_block_has_no_problems() -> None:
    keys = {
        "keys": {"database": "postgres"},
        "aliases": {"gpt": "chat", "gpt-4": "gpt"},
        "routes": {"claude": {"model": "anthropic/claude-sonnet-5", "key": "ANTHROPIC_API_KEY"}},
        "fallbacks": {"gpt": ["claude"]},
        "limits": {"embed": {"rpm": 45}},
        "pass_through": [{"path": "/embed-multimodal", "to": "embed"}],
        "config": {"router_settings": {"retry_after": 1}, "general_settings": {"health_check_interval": 60}},
    }
    assert found(databases=("postgres",), **keys) == []


@pytest.mark.parametrize(
    ("keys", "code", "path", "hint"),
    [
        ({"aliases": {"chat": "embed"}}, "LAB130", ("aliases", "chat"), "another name"),
        ({"routes": {"embed": {"model": "ollama/x"}}}, "LAB130", ("routes", "embed"), "another name"),
        ({"aliases": {"gpt": "chat-larg"}}, "LAB132", ("aliases", "gpt"), "`chat-large`"),
        ({"fallbacks": {"chat": ["embedd"]}}, "LAB132", ("fallbacks", "chat", 0), "`embed`"),
        ({"fallbacks": {"chatt": ["embed"]}}, "LAB132", ("fallbacks", "chatt"), "`chat`"),
        ({"context_fallbacks": {"chat": "nothing"}}, "LAB132", ("context_fallbacks", "chat", 0), "known:"),
        ({"limits": {"emb": {"rpm": 1}}}, "LAB132", ("limits", "emb"), "`embed`"),
        ({"pass_through": [{"path": "/x", "to": "emb"}]}, "LAB132", ("pass_through", 0, "to"), "`embed`"),
        ({"aliases": {"a": "b", "b": "a"}}, "LAB133", ("aliases", "a"), "a deployment or route"),
        ({"fallbacks": {"chat": ["chat"]}}, "LAB133", ("fallbacks", "chat", 0), "another model"),
        ({"routes": {"c": {"model": "anthropic/claude"}}}, "LAB135", ("routes", "c"), "`key: ANTHROPIC_API_KEY`"),
        ({"keys": {"database": "postgres"}}, "LAB136", ("keys", "database"), "`database: none`"),
        (
            {"config": {"router_settings": {"health_check_interval": 15}}},
            "LAB137",
            ("config", "router_settings", "health_check_interval"),
            "under `general_settings`",
        ),
        (
            {"config": {"router_settings": {"num_retry": 1}}},
            "LAB137",
            ("config", "router_settings", "num_retry"),
            "`num_retries`",
        ),
        ({"config": {"router_setings": {}}}, "LAB137", ("config", "router_setings"), "`router_settings`"),
    ],
)
def test_problems(keys: dict[str, Any], code: str, path: tuple[str | int, ...], hint: str) -> None:
    problem = found(**keys)[0]
    assert (problem.code, problem.path) == (code, ("gateway", *path))
    assert hint in problem.hint


@pytest.mark.parametrize(
    "keys",
    [
        {"env": {"OPENAI_API_KEY": "sk-1234567890"}},
        {"env": {"HOOK": "https://hooks.slack.com/services/T/B/x"}},
        {"env": {"LANGFUSE_PUBLIC_KEY": "pk-lf-1234567890"}},
        {"config": {"general_settings": {"database_url": "postgresql://me:password@db/x"}}},
        {"config": {"litellm_settings": {"token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0"}}},
    ],
)
def test_secrets_written_out_are_found_once_for_the_whole_lab(keys: dict[str, Any]) -> None:
    (problem,) = secret_problems({"gateway": keys})
    assert problem.code == "LAB096"
    assert (problem.path or ())[0] == "gateway"
    assert "LAB096" not in {d.code for d in found(**keys)}


def test_one_name_for_two_tasks() -> None:
    (problem,) = found(endpoint("a", "m"), endpoint("b", "m", task=Task.EMBED))
    assert problem.code == "LAB131"
    assert problem.path == ("deployments", "b")
    assert problem.related[0].path == ("deployments", "a")


def test_an_unknown_database_names_the_near_one() -> None:
    (problem,) = found(databases=("postgres",), keys={"database": "postgress"})
    assert problem.code == "LAB136"
    assert "`postgres`" in problem.hint


def test_known_keys_are_those_of_the_installed_litellm() -> None:
    strict = pytest.importorskip("tests.gateways.strict", reason="LiteLLM is not installed", exc_type=ImportError)
    assert strict.router_keys() == SECTIONS["router_settings"]
    assert strict.general_keys() <= SECTIONS["general_settings"]
