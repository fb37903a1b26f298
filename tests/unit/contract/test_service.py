# SPDX-License-Identifier: GPL-2.0-or-later
"""The messages between host and agent are one line each, and come back as they were."""

from __future__ import annotations

import pytest

from harness.contract.service import AgentOptions, PlanRequest, PlanServed, line_of
from harness.contract.structure import from_json
from harness.errors import UsageError
from tests.unit.agent.conftest import make_plan


def test_a_request_is_one_line_and_comes_back() -> None:
    request = PlanRequest(make_plan(), AgentOptions("/run/out", probe="/x/probe.elf", patience=2.5))
    line = line_of(request)
    assert "\n" not in line and from_json(PlanRequest, line) == request


def test_an_answer_comes_back_whatever_it_says() -> None:
    served = PlanServed(3, 'a "word"\nand another\t\x1b[0m', undone=True)
    assert from_json(PlanServed, line_of(served)) == served


@pytest.mark.parametrize("line", ["", "[]", '{"plan": 7}', '{"plan": {}, "options": {"out": 3}}', "\x00"])
def test_anything_else_is_refused_with_its_key(line: str) -> None:
    with pytest.raises(UsageError):
        from_json(PlanRequest, line)
