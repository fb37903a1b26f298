# SPDX-License-Identifier: GPL-2.0-or-later
"""Named steps, and steps after them: what is refused, and what becomes of them in a plan."""

from __future__ import annotations

import pytest

from harness.contract.words import Op
from harness.errors import ScenarioError
from harness.scenario.build import build_plan
from harness.scenario.dump import dump
from harness.scenario.load import load_text

HEAD = """
id = "T1"
title = "t"
[guest]
vcpus = 2
[pages.f]
groups = 1
run = 4
[[steps]]
name = "two"
touch = "f[0:2]"
"""


def refusals(more: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load_text("x", HEAD + more)
    return [line.strip() for line in caught.value.message.splitlines() if "$." in line]


def test_a_step_waits_for_the_last_item_of_the_named_one() -> None:
    (scenario,) = load_text("x", HEAD + '[[steps]]\nvcpu = 1\nafter = "two"\n[[steps]]\nvcpu = 1\ntouch = "f[1]"\n')
    items = build_plan(scenario, 1).items
    assert [(i.op, i.vcpu) for i in items] == [(Op.TOUCH, 0), (Op.TOUCH, 0), (Op.AFTER, 1), (Op.TOUCH, 1)]
    assert items[2].value == 1
    assert load_text("x", dump(scenario)) == (scenario,)


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ('[[steps]]\nvcpu = 1\nafter = "tow"\n', "after", "'tow': a step that has no such name"),
        ('[[steps]]\nafter = "two"\n', "after", "'two' is of vCPU 0, too"),
        ('[[steps]]\nvcpu = 1\nafter = "x"\n[[steps]]\nname = "x"\npause = true\n', "after", "stands below this one"),
        ('[[steps]]\nvcpu = 1\nname = "x"\nafter = "x"\n', "after", "stands below this one"),
        ('[[steps]]\nname = "two"\npause = true\n', "name", "'two' is the name of a step above"),
        ('[[steps]]\nname = "a\\nb"\npause = true\n', "name", "cannot be printed"),
        ('[[steps]]\nvcpu = 1\nafter = ""\n', "after", "an empty word says nothing"),
        ('[[steps]]\nvcpu = 1\nafter = "two"\ncpl = 0\n', "cpl", "after has no cpl"),
    ],
)
def test_what_no_vcpu_can_wait_for_is_refused(more: str, key: str, says: str) -> None:
    (line,) = refusals(more)
    assert f".{key}" in line and says in line, line
