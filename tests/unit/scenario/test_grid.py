# SPDX-License-Identifier: GPL-2.0-or-later
"""The generated grid: each of its scenarios is a scenario, and it goes through every combination once."""

from __future__ import annotations

import pytest

from harness.contract.plan import Access, Op
from harness.scenario.build import build_plan
from harness.scenario.load import load_text
from tests.grid.grid import ACCESSES, GROUNDS, WAYS, all_scenarios, neighbours_of, scenario


@pytest.mark.parametrize("ground", GROUNDS, ids=lambda g: g.name)
def test_every_pair_of_states_and_access_is_there_once(ground) -> None:
    for way in WAYS:
        (loaded,) = load_text("grid", scenario(ground, way))
        plan = build_plan(loaded, 7)
        start = {page.gpa: page.start.value for page in plan.pages}
        touches = [i for i in plan.items if i.op is Op.TOUCH]
        pairs = [(start[a.gpa], start[b.gpa], a.access) for a, b in zip(touches[::3], touches[1::3], strict=True)]
        assert pairs == [(*states, Access(how)) for states in neighbours_of(ground) for how in ACCESSES]
        assert len(pairs) == len(set(pairs))
        assert all(b.gpa == a.gpa + 4096 for a, b in zip(touches[::3], touches[1::3], strict=True))
        assert {i.access for i in touches[2::3]} == {Access.WRITE} and len(plan.items) <= 1024


def test_one_file_per_ground_and_way() -> None:
    assert len(all_scenarios()) == len(GROUNDS) * len(WAYS)
