"""Both axes in full: every engine on every target renders, or says in words why not. Nothing is dropped silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from labctl.artefact import File, ModelFile, Object, SecretFile, Unit
from labctl.engines import ENGINES
from labctl.registry import Registry
from labctl.render import Rendered, _mirrored_bases, _mirrored_form, render
from labctl.resolve.lab import PlacedLab
from labctl.targets import TARGETS
from labctl.workload import Container, ImageBuild
from tests.resolve import labs

SPECS: Mapping[str, Mapping[str, Any]] = {
    "llama.cpp": {"model": "llama"},
    "vllm": {"model": "qwen", "vram": "16 GiB"},
    "ollama": {"models": ("tags",)},
    "container": {"image": "example/server:1.2.3", "vram": {"declared": "4 GiB"}},
    "command": {"program": "/usr/bin/serve", "args": ("--port", "{port}"), "vram": {"declared": "4 GiB"}},
}
REFUSED = {
    ("vllm", "systemd"): "LAB070",
    ("vllm", "local"): "LAB070",
    ("ollama", "systemd"): "LAB070",
    ("ollama", "local"): "LAB070",
    ("container", "systemd"): "LAB080",
    ("container", "local"): "LAB080",
    ("command", "compose"): "LAB080",
    ("command", "k3s"): "LAB080",
}
"""Pairs that cannot work, and the code that says so. All others render."""


def test_the_matrix_is_whole() -> None:
    assert set(SPECS) == set(ENGINES)


def data(engine: str, target: str, **keys: Any) -> dict[str, Any]:
    host: dict[str, Any] = {"target": target, "memory": "64 GiB", "gpus": ({"model": "RTX 3090"},)}
    hosts = {"box": host | ({"nixos": labs.MACHINE} if target == "nixos" else {})}
    spec = {"engine": engine, "on": {"host": "box", "gpus": (0,)}, **SPECS[engine], **keys}
    return labs.lab({"one": spec}, hosts)


def outcome(lab: dict[str, Any]) -> tuple[Rendered | None, list[str]]:
    """Return what a lab renders to, or the codes of its errors, whichever step finds them."""
    found = labs.taken(lab)
    if not found.ok:
        return None, labs.codes(found)
    done = labs.written(lab)
    return done.value if done.ok else None, labs.codes(done)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_pair_renders_or_says_why_not(engine: str, target: str) -> None:
    found, codes = outcome(data(engine, target))
    if (engine, target) in REFUSED:
        assert codes == [REFUSED[engine, target]]
        return
    assert codes == []
    assert found is not None
    (unit,) = [u for u in found.tree.units if u.name == "one"]
    assert unit.origin == ("deployments", "one")
    assert any(isinstance(a, File) for a in found.tree.artefacts)


@pytest.mark.parametrize("pair", [(e, t) for e in ENGINES for t in TARGETS if (e, t) not in REFUSED], ids=str)
def test_secrets_stay_names(pair: tuple[str, str]) -> None:
    engine, target = pair
    found, codes = outcome(data(engine, target, env={"SERVICE_TOKEN": {"secret": "HIDDEN"}, "PLAIN": "seen"}))
    assert found is not None, codes
    hidden: list[SecretFile | Object] = [a for a in found.tree.artefacts if isinstance(a, SecretFile)]
    hidden += [o for o in found.tree.objects if o.entries]
    (secrets,) = hidden
    assert [s.names for s in secrets.entries.values()] == [("HIDDEN",)]
    shown = [*(f.content for f in found.tree.files()), *(o.content for o in found.tree.objects)]
    assert any(b"PLAIN" in content for content in shown)
    if isinstance(secrets, SecretFile):  # in a cluster a digest in the pod's template restarts it: tests/kube
        assert secrets.path in unit_of(found).files


@pytest.mark.parametrize("pair", [(e, t) for e in ENGINES for t in TARGETS if (e, t) not in REFUSED], ids=str)
def test_on_demand(pair: tuple[str, str]) -> None:
    found, codes = outcome(data(*pair, start="on-demand"))
    assert found is not None, codes
    assert unit_of(found).start == "on-demand"


def unit_of(found: Rendered) -> Unit:
    (unit,) = [u for u in found.tree.units if u.name == "one"]
    return unit


def compose(lab: dict[str, Any]) -> dict[str, Any]:
    """Return the compose service of the one deployment."""
    found, codes = outcome(lab)
    assert found is not None, codes
    (file,) = [f for f in found.tree.files() if f.path.endswith("compose.yaml")]
    service: dict[str, Any] = yaml.safe_load(file.content)["services"]["one"]
    return service


def test_images_come_from_where_the_lab_says() -> None:
    lab = data("llama.cpp", "compose")
    own = str(compose(lab)["image"])
    mirrored = {**lab, "images": {"mirror": "registry.lan:5000/mirror"}}
    assert compose(mirrored)["image"] == "registry.lan:5000/mirror/" + own.partition("/")[2]
    replaced = {**lab, "images": {"replace": {"llama.cpp": "registry.lan/llama:1.0"}}}
    assert compose(replaced)["image"] == "registry.lan/llama:1.0"
    both = {**lab, "images": {"mirror": "m.lan", "replace": {"llama.cpp": "llama:1.0"}}}
    assert compose(both)["image"] == "m.lan/llama:1.0"
    assert (
        compose(data("container", "compose") | {"images": {"mirror": "m.lan"}})["image"] == "m.lan/example/server:1.2.3"
    )


def test_an_image_that_is_built_is_built_upon_the_mirrors_images() -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM nvidia/cuda:12 AS build\nRUN echo FROM a\nfrom build as next\n"
        "FROM ghcr.io/a/b:1\nFROM scratch\nFROM $BASE\n"
    )
    assert _mirrored_bases(text, "m.lan/x/").splitlines() == [
        "FROM --platform=$BUILDPLATFORM m.lan/x/nvidia/cuda:12 AS build",
        "RUN echo FROM a",
        "from build as next",
        "FROM m.lan/x/a/b:1",
        "FROM scratch",
        "FROM $BASE",
    ]
    program = "from os import path\n"
    form = Container(image="own", build=ImageBuild(name="own", files={"Dockerfile": "FROM a", "program.py": program}))
    mirrored = _mirrored_form(form, "m.lan").build
    assert mirrored is not None
    assert mirrored.files == {"Dockerfile": "FROM m.lan/a", "program.py": program}, "what is copied stays as it is"
    built = data("llama.cpp", "compose", build={"version": "b11549", "cpu": "baseline"})
    found, codes = outcome({**built, "images": {"mirror": "m.lan"}})
    assert found is not None, codes
    (file,) = [f for f in found.tree.files() if f.path.endswith("/Dockerfile")]
    bases = [line for line in file.content.decode().splitlines() if line.startswith("FROM ")]
    assert len(bases) == 2
    assert all(line.startswith("FROM m.lan/") for line in bases)


def test_an_image_for_nothing() -> None:
    found = labs.taken({**data("llama.cpp", "compose"), "images": {"replace": {"lama.cpp": "x/y:1"}}})
    (problem,) = [d for d in found.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB056", ("images", "replace", "lama.cpp"))
    assert problem.hint == "did you mean `llama.cpp`?"


def test_ollama_in_a_container_serves_pulls_and_is_healthy_when_all_is_there() -> None:
    service = compose(data("ollama", "compose", models=("tags",)))
    assert service["entrypoint"] == ["/bin/sh"]
    assert service["command"][0] == "-c"
    assert service["command"][-1] == "llama3.1:8b"
    assert "ollama serve" in service["command"][1]
    assert "ollama show llama3.1:8b" in " ".join(service["healthcheck"]["test"])
    assert service["environment"]["OLLAMA_HOST"] == "0.0.0.0:11434"


def test_models_of_a_systemd_host_lie_where_it_says_and_units_run_as_its_user() -> None:
    hosts = {
        "orin": {
            "target": "systemd",
            "arch": "aarch64",
            "memory": "64 GiB",
            "gpus": ({"model": "Jetson AGX Orin 64GB"},),
            "models": "/home/lab/models/",
            "user": "lab",
        }
    }
    found = labs.rendered(labs.lab({"one": labs.llama(on={"host": "orin", "gpus": "all"})}, hosts))
    (model,) = [a for a in found.tree.artefacts if isinstance(a, ModelFile)]
    assert model.path.startswith("home/lab/models/bartowski--")
    (unit,) = [f for f in found.tree.files() if f.path.endswith("-one.service")]
    text = unit.content.decode()
    assert "User=lab" in text
    assert f"--model /{model.path}" in text


SPLIT = "hf://ggml-org/gpt-oss-120b-GGUF/gpt-oss-120b-mxfp4-00001-of-00003.gguf"


def test_every_part_of_a_split_model_and_its_projector_are_fetched() -> None:
    model = {
        "gguf": SPLIT,
        "projector": "hf://ggml-org/other-GGUF/mmproj-f16.gguf",
        "revision": "abc123",
    }
    lab = labs.lab({"one": labs.llama(model="big", on={"host": "box"})}, models={"big": model})
    files = {a.path: a.url for a in labs.rendered(lab).tree.artefacts if isinstance(a, ModelFile)}
    folder = "var/lib/labctl/models"
    stem = "ggml-org--gpt-oss-120b-GGUF/gpt-oss-120b-mxfp4"
    assert files == {
        f"{folder}/ggml-org--other-GGUF/mmproj-f16.gguf": "hf://ggml-org/other-GGUF/mmproj-f16.gguf",
        **{
            f"{folder}/{stem}-0000{i}-of-00003.gguf": SPLIT.replace("-00001-", f"-0000{i}-").replace(
                "-GGUF/", "-GGUF@abc123/"
            )
            for i in (1, 2, 3)
        },
    }


def test_a_digest_in_the_lab_counts() -> None:
    model = {"gguf": labs.LLAMA, "sha256": "a" * 64, "size": "5 GB"}
    lab = labs.lab({"one": labs.llama(on={"host": "box"})}, models={"llama": model})
    (file,) = [a for a in labs.rendered(lab).tree.artefacts if isinstance(a, ModelFile)]
    assert (file.sha256, file.size) == ("a" * 64, 5_000_000_000)


def test_two_models_that_would_be_one_file() -> None:
    models = {"a": {"gguf": "https://one.example/m.gguf"}, "b": {"gguf": "https://two.example/m.gguf"}}
    lab = labs.lab({n: labs.llama(model=n, on={"host": "box"}) for n in "ab"}, models=models)
    (problem,) = [d for d in labs.taken(lab).diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB055", ("models", "b", "gguf"))


def test_what_cannot_be_written_is_located() -> None:
    done = labs.written(data("llama.cpp", "local", args=("a\x00b",)))
    (problem,) = [d for d in done.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB084", ("deployments", "one"))


def test_a_broken_template_is_located(tmp_path: Any) -> None:
    (tmp_path / "templates" / "llama.cpp").mkdir(parents=True)
    (tmp_path / "templates" / "llama.cpp" / "Dockerfile.j2").write_text("FROM {{ nothing }}")
    build = {"version": "b11549", "cuda": "12.8.1", "capabilities": ("8.6",)}
    done = labs.written(data("llama.cpp", "compose", build=build), tmp_path)
    (problem,) = [d for d in done.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB098", ("deployments", "one"))
    assert "nothing" in problem.summary


def test_a_clash_of_files_is_a_problem_of_its_host() -> None:
    """Two artefacts of one path: here a target that renders a file twice."""

    class Twice:
        name, accepts, by_name = "twice", frozenset(Registry().target("compose").accepts), True  # type: ignore[union-attr]

        def places(self, *_: Any) -> Any:
            raise NotImplementedError

        def control(self, *_: Any) -> None:
            return None

        def network(self, *_: Any) -> None:
            return None

        def render(self, host: Any, *_: Any) -> Any:
            return [File(host=host.name, path="a", content=b"1"), File(host=host.name, path="a", content=b"2")]

    found: PlacedLab = labs.placed(data("llama.cpp", "compose"))
    done = render(found, {"box": Twice()}, lambda name: name)
    (problem,) = [d for d in done.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB084", ("hosts", "box"))
