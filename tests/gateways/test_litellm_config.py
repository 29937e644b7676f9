"""What labctl renders for LiteLLM, read by LiteLLM's own types."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from labctl.gateways import GatewayAsk
from labctl.gateways.litellm import gateway
from labctl.gateways.litellm.groups import share
from labctl.workload import ApiFlavour, Container, Endpoint, Native, SecretText, Task, Workload
from tests.gateways.labs import DATABASE, ask, block, endpoint

strict = pytest.importorskip("tests.gateways.strict", reason="LiteLLM is not installed", exc_type=ImportError)


def workload(asked: GatewayAsk) -> Workload:
    found, *_ = gateway.workloads(asked)
    return found


def config(asked: GatewayAsk) -> dict[str, Any]:
    """Render, hold against LiteLLM, and read back as LiteLLM does."""
    content = workload(asked).files[0].content
    assert strict.problems(content) == []
    loaded: dict[str, Any] = yaml.safe_load(content)
    return loaded


def farm() -> tuple[Endpoint, ...]:
    chat = [
        endpoint(f"sfw-{i}", "chat-sfw", "chat", label=f"ash-gpu{i}", rpm=r) for i, r in enumerate((12, 11, 11, 11))
    ]
    embed = [endpoint(f"embed-{i}", "embed", label=f"ash-gpu{i}", task=Task.EMBED) for i in range(8)]
    return (*chat, *embed)


def test_one_deployment_per_server_with_ids_that_name_the_card() -> None:
    models = config(ask(*farm()))["model_list"]
    assert [m["model_info"]["id"] for m in models if m["model_name"] == "chat-sfw"] == [
        f"chat-sfw@ash-gpu{i}" for i in range(4)
    ]
    assert len(models) == 12


def test_a_second_name_of_the_same_servers_is_an_alias() -> None:
    found = config(ask(*farm(), aliases={"gpt-4": "chat"}))
    assert found["router_settings"]["model_group_alias"] == {"chat": "chat-sfw", "gpt-4": "chat-sfw"}


def test_a_name_over_two_deployments_is_a_group_of_its_own() -> None:
    found = config(ask(endpoint("a", "a", "any"), endpoint("b", "b", "any")))
    names = [m["model_name"] for m in found["model_list"]]
    assert sorted(names) == ["a", "any", "any", "b"]
    assert "model_group_alias" not in found["router_settings"]


@pytest.mark.parametrize(
    ("flavour", "task", "model", "mode", "base"),
    [
        (ApiFlavour.OPENAI, Task.CHAT, "openai/m", "chat", "http://ash:8080/v1"),
        (ApiFlavour.OPENAI, Task.EMBED, "openai/m", "embedding", "http://ash:8080/v1"),
        (ApiFlavour.OPENAI, Task.RERANK, "hosted_vllm/m", "rerank", "http://ash:8080/v1"),
        (ApiFlavour.OPENAI, Task.COMPLETE, "text-completion-openai/m", "completion", "http://ash:8080/v1"),
        (ApiFlavour.OPENAI, Task.IMAGE, "openai/m", "image_generation", "http://ash:8080/v1"),
        (ApiFlavour.OPENAI, Task.TRANSCRIBE, "openai/m", "audio_transcription", "http://ash:8080/v1"),
        (ApiFlavour.OPENAI, Task.SPEAK, "openai/m", "audio_speech", "http://ash:8080/v1"),
        (ApiFlavour.VLLM, Task.CHAT, "hosted_vllm/m", "chat", "http://ash:8080/v1"),
        (ApiFlavour.VLLM, Task.EMBED, "hosted_vllm/m", "embedding", "http://ash:8080/v1"),
        (ApiFlavour.VLLM, Task.TRANSCRIBE, "hosted_vllm/m", "audio_transcription", "http://ash:8080/v1"),
        (ApiFlavour.OLLAMA, Task.CHAT, "ollama_chat/m", "chat", "http://ash:8080"),
        (ApiFlavour.OLLAMA, Task.EMBED, "ollama/m", "embedding", "http://ash:8080"),
    ],
)
def test_client_and_mode_follow_flavour_and_task(
    flavour: ApiFlavour, task: Task, model: str, mode: str, base: str
) -> None:
    (entry,) = config(ask(endpoint("s", "public", backend_model="m", flavour=flavour, task=task)))["model_list"]
    assert entry["litellm_params"]["model"] == model
    assert entry["litellm_params"]["api_base"] == base
    assert entry["model_info"]["mode"] == mode


def test_embeddings_send_their_encoding() -> None:
    entries = config(ask(*farm()))["model_list"]
    sent = {m["model_name"]: m["litellm_params"].get("encoding_format") for m in entries}
    assert sent == {"chat-sfw": None, "embed": "float"}


def test_limits_are_counted_and_enforced() -> None:
    found = config(ask(*farm()))
    assert sum(m["litellm_params"].get("rpm", 0) for m in found["model_list"]) == 45
    assert found["router_settings"]["optional_pre_call_checks"] == ["enforce_model_rate_limits"]
    assert "optional_pre_call_checks" not in config(ask(endpoint("a", "a")))["router_settings"]


def test_a_limit_that_is_reached_is_no_failure_of_the_server() -> None:
    found = config(ask(*farm(), endpoint("p", "p", parallel=2)))["model_list"]
    policies = {m["model_name"]: m["model_info"].get("allowed_fails_policy") for m in found}
    assert policies["chat-sfw"] == policies["p"] == {"RateLimitErrorAllowedFails": 1_000_000}
    assert policies["embed"] is None


def test_limits_of_the_gateway_follow_an_alias_and_are_divided() -> None:
    found = config(ask(*farm(), limits={"chat": {"rpm": "30 rpm"}}))
    assert [m["litellm_params"].get("rpm") for m in found["model_list"]][:4] == [8, 8, 7, 7]


def test_an_unlimited_sibling_still_gets_requests() -> None:
    """The shuffle takes rpm for weights: a server without one would have the weight 0."""
    found = config(ask(endpoint("a", "m", rpm=10), endpoint("b", "m")))
    assert [m["litellm_params"]["weight"] for m in found["model_list"]] == [1, 1]


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_shares_add_up(limit: int, servers: int) -> None:
    shares = [part or 0 for part in share(limit, servers)]
    assert sum(shares) == max(limit, servers)
    assert max(shares) - min(shares) <= 1


def test_a_model_with_one_server_is_never_cooled_down() -> None:
    found = config(ask(*farm(), endpoint("only", "only")))["model_list"]
    assert {m["model_name"]: m["model_info"].get("cooldown_time") for m in found} == {
        "chat-sfw": None,
        "embed": None,
        "only": 0,
    }


def test_siblings_are_tried_where_the_strategy_can() -> None:
    assert config(ask(*farm()))["router_settings"]["enable_weighted_failover"] is True
    assert "enable_weighted_failover" not in config(ask(*farm(), strategy="least-busy"))["router_settings"]


def test_a_server_s_own_timeout_wins_over_the_router_s() -> None:
    asked = ask(endpoint("v", "vision", timeout=300), endpoint("c", "chat"), timeout="90 s", stream_timeout="60 s")
    found = config(asked)
    params = {m["model_name"]: m["litellm_params"] for m in found["model_list"]}
    assert params["vision"]["timeout"] == params["vision"]["stream_timeout"] == 300
    assert "timeout" not in params["chat"]
    assert found["router_settings"]["timeout"] == 90
    assert found["router_settings"]["stream_timeout"] == 60


def test_nothing_is_checked_by_inference_unless_asked() -> None:
    found = config(ask(endpoint("swap", "swap", on_demand=True)))
    assert found["general_settings"]["background_health_checks"] is False
    assert found["general_settings"]["health_check_skip_disabled_background_models"] is True
    assert found["model_list"][0]["model_info"]["disable_background_health_check"] is True


@pytest.mark.parametrize("task", [Task.IMAGE, Task.SPEAK, Task.TRANSCRIBE])
def test_no_picture_is_painted_to_see_whether_the_painter_lives(task: Task) -> None:
    (entry,) = config(ask(endpoint("p", "p", task=task), health={"every": "15 s"}))["model_list"]
    assert entry["model_info"]["disable_background_health_check"] is True


def test_background_checks() -> None:
    found = config(
        ask(endpoint("a", "a"), health={"every": "15 s", "concurrency": 2, "timeout": "5 s", "routing": True})
    )
    assert found["general_settings"]["health_check_interval"] == 15
    assert found["general_settings"]["background_health_checks"] is True
    assert found["router_settings"]["enable_health_check_routing"] is True
    assert found["model_list"][0]["model_info"]["health_check_timeout"] == 5


def test_cloud_routes_and_fallbacks() -> None:
    routes = {
        "claude": {"model": "anthropic/claude-sonnet-5", "key": "ANTHROPIC_API_KEY", "rpm": 50},
        "titan": {
            "model": "bedrock/amazon.titan",
            "secrets": {"aws_access_key_id": "AWS_ID", "aws_secret_access_key": "AWS_KEY"},
            "params": {"aws_region_name": "eu-central-1"},
        },
    }
    asked = ask(*farm(), routes=routes, fallbacks={"chat": ["claude"]}, context_fallbacks={"chat": "claude"})
    found = config(asked)
    by_name = {m["model_name"]: m["litellm_params"] for m in found["model_list"]}
    assert by_name["claude"]["api_key"] == "os.environ/ROUTE_CLAUDE_API_KEY"
    assert by_name["titan"]["aws_region_name"] == "eu-central-1"
    both = [{"chat": ["claude"]}, {"chat-sfw": ["claude"]}]
    assert found["router_settings"]["fallbacks"] == found["router_settings"]["context_window_fallbacks"] == both
    env = {k: v.names for k, v in workload(asked).env.items() if isinstance(v, SecretText)}
    assert env["ROUTE_CLAUDE_API_KEY"] == ("ANTHROPIC_API_KEY",)
    assert env["ROUTE_TITAN_AWS_SECRET_ACCESS_KEY"] == ("AWS_KEY",)


def test_parallel_is_admission_control() -> None:
    found = config(ask(endpoint("a", "a"), parallel=16, queue=50, workers=2, timeout="90 s"))["general_settings"]
    assert found["max_in_flight_requests_per_worker"] == 8
    assert found["max_queued_requests_per_worker"] == 25
    assert found["admission_queue_timeout_seconds"] == 90
    assert "global_max_parallel_requests" not in found


def test_pass_through() -> None:
    entry = {"path": "/embed-multimodal", "to": "alias", "timeout": "5 min"}
    asked = ask(*farm(), aliases={"alias": "embed"}, pass_through=[entry])
    assert config(asked)["general_settings"]["pass_through_endpoints"] == [
        {
            "path": "/embed-multimodal",
            "target": "http://ash:8084/v1/embeddings",
            "methods": ["POST"],
            "timeout": 300,
            "include_subpath": False,
            "auth": True,
        }
    ]


def test_what_the_user_adds_is_merged_last() -> None:
    added = {"router_settings": {"num_retries": 7}, "litellm_settings": {"num_retries": 1}}
    found = config(ask(endpoint("a", "a"), config=added))
    assert found["router_settings"]["num_retries"] == 7
    assert found["router_settings"]["routing_strategy"] == "simple-shuffle"
    assert found["litellm_settings"] == {"drop_params": True, "num_retries": 1}


def test_secrets_are_references_everywhere() -> None:
    asked = ask(*farm(), database=DATABASE, keys={"database": "postgres", "master": "GATE_KEY"}, callbacks=["langfuse"])
    found = workload(asked)
    assert config(asked)["general_settings"]["master_key"] == "os.environ/LITELLM_MASTER_KEY"
    assert config(asked)["general_settings"]["database_url"] == "os.environ/DATABASE_URL"
    names = {name for value in found.env.values() if isinstance(value, SecretText) for name in value.names}
    expected = {"GATE_KEY", "LITELLM_SALT_KEY", "POSTGRES_PASSWORD", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"}
    assert names == expected
    assert found.after == ("gateway-tables",)


def test_several_proxies_that_count_for_themselves_are_said() -> None:
    limited = (endpoint("a", "a", rpm=30),)
    assert [d.code for d in gateway.check(block(replicas=3), limited, ())] == ["LAB153"]
    redis = {"router_settings": {"redis_host": "redis", "redis_port": 6379}}
    assert not list(gateway.check(block(replicas=3, config=redis), limited, ()))
    assert not list(gateway.check(block(replicas=3), (endpoint("a", "a"),), ()))
    assert workload(ask(endpoint("a", "a"), replicas=3)).replicas == 3


def test_what_waits_is_shared_by_all_processes() -> None:
    found = config(ask(endpoint("a", "a"), parallel=12, queue=60, workers=2, replicas=3))["general_settings"]
    assert found["max_in_flight_requests_per_worker"] == 2
    assert found["max_queued_requests_per_worker"] == 10


def test_a_wrong_key_is_refused_with_or_without_a_database() -> None:
    """Without one, LiteLLM's own check answers 400 to a wrong key, so a file beside the configuration does it."""
    alone = ask(endpoint("a", "a"))
    assert config(alone)["general_settings"]["custom_auth"] == "labctl_auth.check"
    assert [(f.name, f.target) for f in workload(alone).files][1:] == [("labctl_auth.py", "/app/labctl_auth.py")]
    kept = ask(endpoint("a", "a"), database=DATABASE, keys={"database": "postgres"})
    assert "custom_auth" not in config(kept)["general_settings"]
    assert len(workload(kept).files) == 1


def test_forms() -> None:
    container, native = workload(ask(endpoint("a", "a"), workers=2)).forms
    assert isinstance(container, Container)
    assert container.args == ("--config", "/app/config.yaml", "--port", "4000", "--num_workers", "2")
    assert isinstance(native, Native)
    assert native.args[:4] == ("-m", "labctl.embedded.litellm_proxy", "--config", "{config:config.yaml}")
    health = workload(ask(endpoint("a", "a"))).health
    assert health is not None
    assert health.path == "/health/liveliness"


def test_the_same_ask_gives_the_same_bytes() -> None:
    assert workload(ask(*farm())) == workload(ask(*farm()))
