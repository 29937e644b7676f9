"""``labctl doctor``."""

from __future__ import annotations

import typer

from labctl.cli.options import HERE, AskSudoPassword, Hosts, Json, LabPath, Overlays


def doctor(
    lab: LabPath = HERE,
    host: Hosts = [],  # noqa: B006
    overlay: Overlays = [],  # noqa: B006
    ask_sudo_password: AskSudoPassword = False,
    json: Json = False,
) -> None:
    """Say what each host still needs before the lab can be applied to it."""
    from labctl import doctor, usecases
    from labctl.cli.report import check, printer
    from labctl.cli.sudo import sudo_password
    from labctl.diagnostics import ExitCode
    from labctl.views.doctor import doctor_to_value, render_doctor

    sudo_password(ask=ask_sudo_password)
    loaded = usecases.load(lab, tuple(overlay))
    check(loaded.diagnostics, json=json)
    hosts = doctor.examine(loaded, tuple(host))
    if json:
        printer().data_json({"hosts": doctor_to_value(hosts)})
    else:
        printer().data(render_doctor(hosts))
    if not all(examined.ok for examined in hosts):
        raise typer.Exit(ExitCode.ERROR)
