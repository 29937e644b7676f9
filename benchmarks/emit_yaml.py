"""How long the compose file of many services takes: our writer against the libraries."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import yaml as pyyaml
from ruamel.yaml import YAML

from labctl.emit import Value, yaml


def project(services: int) -> Value:
    """Return a compose project of that many services, each of about 40 lines."""
    return {
        "name": "lab",
        "services": {f"chat-{number}": _service(number) for number in range(services)},
    }


def _service(number: int) -> Value:
    return {
        "image": "ghcr.io/ggml-org/llama.cpp:server-cuda-b6500",
        "command": ["--model", f"/models/{number}.gguf", "--port", "8080", "--alias", "on", "-c", "8192", "--jinja"],
        "environment": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "NOTE": "a: b #c"},
        "ports": [f"127.0.0.1:{number}:8080"],
        "healthcheck": {"test": ["CMD", "curl", "http://127.0.0.1:8080/health"], "interval": "15s", "retries": 3},
        "deploy": {"resources": {"reservations": {"devices": [{"driver": "nvidia", "device_ids": ["0"]}]}}},
        "labels": {"labctl.lab": "lab", "labctl.fingerprint": "0" * 64},
    }


def _ruamel(value: Value) -> str:
    stream = io.StringIO()
    YAML().dump(value, stream)
    return stream.getvalue()


def _seconds(write: Callable[[Value], str], value: Value) -> float:
    start = time.process_time()
    write(value)
    return time.process_time() - start


def main() -> None:
    """Print CPU seconds by writer and number of services."""
    writers: dict[str, Callable[[Value], str]] = {
        "labctl.emit.yaml": yaml.dump,
        "ruamel (round trip)": _ruamel,
        "PyYAML (pure Python)": lambda value: str(pyyaml.dump(value, Dumper=pyyaml.SafeDumper, sort_keys=False)),
    }
    for name, write in writers.items():
        for services in (500, 5000):
            print(f"{name:22} {services:5} services  {_seconds(write, project(services)):6.2f} s")


if __name__ == "__main__":
    main()
