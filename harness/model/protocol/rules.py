# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules D01..D44 that every trace of KVM's asynchronous page faults must obey, as data.

The automaton (protocol.py) and the counter checks (protocol_totals.py) enforce them; ``apf rules`` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.model.protocol.rules_base import Rule
from harness.model.protocol.rules_table import TABLE

__all__ = ["RULES", "Rule"]

RULES: Mapping[str, Rule] = MappingProxyType({rule.id: rule for rule in TABLE})
"""All rules by id, in the order of behaviour.md section D."""
