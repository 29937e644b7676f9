"""``labctl explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from labctl.cli.options import Json


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="For example LAB021; or `gpus` for the known cards.")],
    json: Json = False,
) -> None:
    """Explain the code of an error or warning."""
    if code.lower() == "gpus":
        _cards(json=json)
        return
    from labctl.cli.report import printer
    from labctl.explain import UnknownCodeError
    from labctl.explain import explain as find_page
    from labctl.views.explain import page_json, render_page

    try:
        page = find_page(code)
    except UnknownCodeError as error:
        raise typer.BadParameter(str(error), param_hint="CODE") from None
    if json:
        printer().data_json(page_json(page))
    else:
        printer().data(render_page(page))


def _cards(*, json: bool) -> None:
    from labctl.cli.report import printer
    from labctl.compat.gpus import all_gpus
    from labctl.views.cards import cards_json, render_cards

    if json:
        printer().data_json(cards_json(all_gpus()))
    else:
        printer().data(render_cards(all_gpus()))
