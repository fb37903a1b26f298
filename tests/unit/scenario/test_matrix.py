# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from harness.errors import ScenarioError
from harness.scenario.load import load_text

BASE = """
id = "X"
title = "t"
[matrix]
"swap.page_cluster" = [1, 2]
"steps.0.access" = ["read", "write"]
[pages.f]
groups = 1
[[steps]]
touch = "f"
"""


def test_all_combinations_with_stable_ids() -> None:
    loaded = load_text("x", BASE)
    assert [s.id for s in loaded] == [
        "X/page_cluster=1,access=read",
        "X/page_cluster=1,access=write",
        "X/page_cluster=2,access=read",
        "X/page_cluster=2,access=write",
    ]
    assert [(s.swap.page_cluster, s.steps[0].access.value) for s in loaded] == [
        (1, "read"),
        (1, "write"),
        (2, "read"),
        (2, "write"),
    ]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ('"swap.page_cluster" = 1', "expected a list of values"),
        ('"swap.page_cluster" = []', "expected a list of values"),
        ('"steps.7.access" = ["read"]', "no element '7'"),
        ('"id.x" = [1]', "'id' is not a table"),
        ('"swap.nothing" = [1]', "unknown key 'nothing'"),
    ],
)
def test_axes_that_lead_nowhere(axis: str, message: str) -> None:
    text = BASE.replace('"swap.page_cluster" = [1, 2]\n"steps.0.access" = ["read", "write"]', axis)
    with pytest.raises(ScenarioError, match=message):
        load_text("x", text)
