# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rules are told besides the trace."""

from __future__ import annotations

from dataclasses import fields

from harness.model.protocol.rule_context import RuleContext
from harness.model.protocol.rules import RULES

_NOTHING_IS_LEFT_OUT = {
    "kernel_rip": "which faults are a kernel's, where no FaultState says so",
    "slots_change_ns": "None: they never change",
    "area_of_data": "None: no area has any",
}
"""Without these the rules that look at them are checked whole."""


def test_a_rule_says_of_each_field_that_it_is_not_known() -> None:
    """Else what the evidence does not give would be passed in silence."""
    unknown = {field.name for field in fields(RuleContext) if field.default is None}
    listed = {name for rule in RULES.values() for name in rule.context}
    assert listed <= unknown
    assert unknown - listed == set(_NOTHING_IS_LEFT_OUT)
