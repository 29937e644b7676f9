"""A llama.cpp image for cards and CPUs that no published image serves, built on the host."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Final

from labctl.diagnostics import Diagnostic, LabctlError
from labctl.engines import Template
from labctl.model.deployment import Build
from labctl.placed import Runtime
from labctl.workload import ImageBuild

if TYPE_CHECKING:
    from jinja2 import Template as JinjaTemplate

DOCKERFILE: Final = "llama.cpp/Dockerfile.j2"

X86_EXTENSIONS: Final = ("AVX", "AVX2", "AVX512", "BMI2", "F16C", "FMA")
"""CMake options ``GGML_<NAME>`` that are on by default in a native build (ggml/CMakeLists.txt, b11549)."""


def image_build(build: Build, runtime: Runtime, template: Template) -> ImageBuild:
    """Return the Dockerfile; its name holds a digest of it, so that a changed build is another image.

    LabctlError when there is no template, or a user's own one is broken.
    """
    from jinja2 import TemplateError  # noqa: PLC0415 - only labs that build an image need Jinja

    try:
        text = _compiled(template(DOCKERFILE)).render(
            version=build.version or runtime.version,
            cuda=build.cuda,
            architectures=";".join(c.replace(".", "") for c in build.capabilities),
            cmake_flags=_cpu_flags(build),
            native="ON" if build.cpu == "native" else "OFF",
        )
    except TemplateError as error:
        summary = f"template `{DOCKERFILE}` cannot be filled in: {error}"
        hint = "correct your own version of it, or remove it to use the one that labctl ships"
        raise LabctlError([Diagnostic(code="LAB098", summary=summary, hint=hint)]) from error
    digest = hashlib.sha256(json.dumps(text).encode()).hexdigest()[:12]
    return ImageBuild(name=f"llama.cpp-{build.version or runtime.version}-{digest}", files={"Dockerfile": text})


@cache
def _compiled(text: str) -> JinjaTemplate:
    """Return a template ready to be filled in: every server of a lab fills in the same one."""
    from jinja2 import StrictUndefined  # noqa: PLC0415
    from jinja2.sandbox import SandboxedEnvironment  # noqa: PLC0415

    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    return environment.from_string(text)


def _cpu_flags(build: Build) -> list[str]:
    """Return every extension switched on or off by name; a native build asks the compiler."""
    if build.cpu == "native":
        return []
    wanted = set() if build.cpu == "baseline" else {f.upper() for f in build.cpu}
    return [f"-DGGML_{x}={'ON' if x in wanted else 'OFF'}" for x in X86_EXTENSIONS]
