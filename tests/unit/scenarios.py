# SPDX-License-Identifier: GPL-2.0-or-later
"""The repository's scenarios for tests that look at many of them: read once, each plan built once."""

from __future__ import annotations

import functools
from types import MappingProxyType

from harness.contract.plan import Plan
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.scenario.build import build_plan
from harness.scenario.schema import Scenario


@functools.cache
def all_scenarios() -> MappingProxyType[str, Scenario]:
    """By id, in the order of the files."""
    return MappingProxyType({s.id: s for s in read_scenarios((default_scenarios(),))})


@functools.cache
def plan_of(name: str) -> Plan:
    """The plan of one, with nonce 1."""
    return build_plan(all_scenarios()[name], 1)
