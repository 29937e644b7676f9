"""Every case under ``cases/``: what is wanted and what was seen, to the plan as text.

``LABCTL_UPDATE_CASES=1 pytest tests/plan/test_corpus.py`` writes the present text into the files, to be read in review.
"""

from __future__ import annotations

import os
import re

import pytest

from labctl.plan.diff import diff
from labctl.plan.model import Plan
from labctl.plan.wire import plan_from_json, plan_to_json
from labctl.views.plan import render_plan
from tests.plan import corpus


@pytest.mark.parametrize("name", corpus.names())
def test_plan(name: str) -> None:
    case = corpus.read(name)
    plan = _plan(case)
    text = render_plan(plan, unchanged=True, diff=True)
    if os.environ.get("LABCTL_UPDATE_CASES"):
        _update(name, text)
        return
    assert text == case.expected


@pytest.mark.parametrize("name", corpus.names())
def test_plan_survives_json(name: str) -> None:
    case = corpus.read(name)
    plan = _plan(case)
    assert plan_from_json(plan_to_json(plan)) == plan


def _plan(case: corpus.Case) -> Plan:
    destroy, data = case.options.get("destroy", False), case.options.get("data", False)
    return diff(case.tree, case.observed, case.secrets, destroy=destroy, data=data)


def _update(name: str, text: str) -> None:
    path = corpus.FOLDER / f"{name}.toml"
    old = re.sub(r'\Aexpected = """\n.*?\n"""\n\n', "", path.read_text(), flags=re.DOTALL)
    path.write_text(f'expected = """\n{text}\n"""\n\n{old}')
