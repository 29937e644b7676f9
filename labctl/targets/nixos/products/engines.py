"""Model servers: ``services.ollama`` and ``services.llama-cpp``, or services of their own where there are several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from labctl.emit import nix
from labctl.targets.nixos import program, release, secret
from labctl.targets.nixos.run import Made, Run
from labctl.targets.nixos.values import given, merge
from labctl.workload import Accelerator, Native

_OWN_FLAGS: Final = frozenset({"--model", "--host", "--port"})
"""Arguments of llama-server that the module has options for."""


def ollama(run: Run) -> Made | None:
    """Return ``services.ollama``, which pulls the models that are declared; of several, each is its own service."""
    form = run.native
    if form is None:
        return None
    package = release.package("ollama", _accelerator(run))
    if not run.alone or run.host.user:
        return _several_ollamas(run, form, package)
    port = run.workload.port()
    variables = program.environment(run, form)
    plain = {name: value for name, value in variables.plain.items() if name != "OLLAMA_HOST"}
    gfx = plain.pop("HSA_OVERRIDE_GFX_VERSION", None)
    value: dict[str, nix.Value] = {
        "enable": True,
        **(_acceleration(run) if run.release.ollama == "acceleration" else {"package": package}),
        "host": f"[{port.bind}]" if ":" in port.bind else port.bind,
        "port": port.published or port.listen,
        "rocmOverrideGfx": gfx,
        "environmentVariables": plain,
        "loadModels": list(form.args[3:]),
    }
    files: dict[str, nix.Value] = {"EnvironmentFile": secret.place(run.host, f"{run.workload.name}.env")}
    options: dict[str, nix.Value] = {"services": {"ollama": given(value)}}
    if variables.secret:
        options["systemd"] = {"services": {"ollama": {"serviceConfig": files}}}
    return Made(
        options=options,
        unit="ollama.service",
        form=form,
        module=True,
        secrets=variables.secret,
        unfree=_unfree(run),
        companions=("ollama-model-loader.service",) if form.args[3:] else (),
    )


def _several_ollamas(run: Run, form: Native, package: nix.Value) -> Made:
    made = program.service(run, form, name=f"ollama-{run.workload.name}", package=package)
    # the module would do so for its one: labctl asks by `ollama show` whether all models are there
    on_path: dict[str, nix.Value] = {"environment": {"systemPackages": [package]}}
    return replace(made, unfree=_unfree(run), options=merge(made.options, on_path))


def _acceleration(run: Run) -> dict[str, nix.Value]:
    accelerator = _accelerator(run)
    return {"acceleration": False if accelerator is None else str(accelerator)}


def llama_cpp(run: Run) -> Made | None:
    """Return ``services.llama-cpp`` for the only server of a host, else a service of its own. Arguments stay exact."""
    form = run.native
    if form is None or form.program != "llama-server":
        return None
    package = release.package("llama.cpp", _accelerator(run))
    flags = tuple(flag for flag in _flags(form.args) if flag[0] not in run.release.llama_cpp_lacks)
    form = replace(form, args=tuple(word for flag in flags for word in flag if word is not None))
    if not run.alone or run.host.user or not _is_plain(flags) or program.environment(run, form).secret:
        server = nix.Text(package, f"/bin/{release.program('llama.cpp')}")
        made = program.service(run, form, name=f"llama-cpp-{run.workload.name}", program=server)
        return replace(made, unfree=_unfree(run))
    value: dict[str, nix.Value] = {"enable": True, "package": package, **_arguments(run, flags)}
    unit: dict[str, nix.Value] = {
        "environment": program.environment(run, form).plain,
        "serviceConfig": {
            **program.devices(run.workload),
            "RestartSec": _forced(10, "the module waits five minutes"),
            **(_unlocked() if run.workload.gpu else {}),
        },
    }
    return Made(
        options={"services": {"llama-cpp": value}, "systemd": {"services": {"llama-cpp": given(unit)}}},
        unit="llama-cpp.service",
        form=form,
        module=True,
        restarts=True,
        unfree=_unfree(run),
    )


def _forced(value: nix.Value, why: str) -> nix.Noted:
    return nix.Noted(nix.Call("lib.mkForce", value), why)


def _unlocked() -> dict[str, nix.Value]:
    """Return what the module forbids and drivers need: they compile kernels, and look for cards in /proc."""
    compiling = "drivers compile kernels and shaders for the card when a model is loaded"
    looking = "threads are chosen by /proc/cpuinfo, cards found in /proc/driver"
    forbids = False
    return {"MemoryDenyWriteExecute": _forced(forbids, compiling), "ProcSubset": _forced("all", looking)}


def _arguments(run: Run, flags: Sequence[tuple[str, str | None]]) -> dict[str, nix.Value]:
    known = dict(flags)
    if run.release.llama_cpp == "settings":
        settings: dict[str, nix.Value] = {name.removeprefix("--"): _setting(value) for name, value in flags}
        return {"settings": settings}
    rest = [word for name, value in flags if name not in _OWN_FLAGS for word in (name, value) if word is not None]
    return {
        "model": known["--model"],
        "host": known["--host"],
        "port": int(known["--port"] or 0),
        "extraFlags": rest,
    }


def _setting(value: str | None) -> nix.Value:
    if value is None:
        return True
    return int(value) if value.isascii() and value.isdigit() and str(int(value)) == value else value


def _flags(args: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield llama-server's arguments as flags with their values; None for a switch."""
    words = list(args)
    while words:
        name = words.pop(0)
        follows = bool(words) and not words[0].startswith("--")
        yield name, words.pop(0) if follows else None


def _is_plain(flags: Sequence[tuple[str, str | None]]) -> bool:
    """Whether the module can say them: each a long flag, each once, the model among them."""
    names = [name for name, _ in flags]
    return (
        all(n.startswith("--") and "=" not in n for n in names)
        and len(set(names)) == len(names)
        and (set(names) >= _OWN_FLAGS)
    )


def _accelerator(run: Run) -> Accelerator | None:
    return run.workload.gpu.accelerator if run.workload.gpu else None


def _unfree(run: Run) -> frozenset[str]:
    accelerator = _accelerator(run)
    return release.unfree(accelerator) if accelerator else frozenset()
