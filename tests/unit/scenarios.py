# SPDX-License-Identifier: GPL-2.0-or-later
"""The repository's scenarios for tests that look at many of them: read once, each plan built and predicted once."""

from __future__ import annotations

import functools
from types import MappingProxyType

from harness.contract.plan import Plan
from harness.model.kernels import KernelModel
from harness.prediction import predict
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


@functools.cache
def known_faults_of(name: str, kernel: KernelModel) -> tuple[frozenset[str], bool]:
    """Which known faults make a difference in a scenario on that kernel, and whether its program ends."""
    found = predict(plan_of(name), kernel)
    return frozenset(found.known_faults), found.ends
