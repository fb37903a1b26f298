# SPDX-License-Identifier: GPL-2.0-or-later
"""Which CPUs guests may run on."""

from __future__ import annotations

import os

import pytest

from harness.agent.host.guest_cpus import allowed_cpus, guest_cpus
from harness.contract.capture import EMULATED

TOLD = f"console=ttyS0 {EMULATED} quiet"


@pytest.mark.parametrize(
    ("cmdline", "cpus", "allowed"),
    [
        ("console=ttyS0", {0, 1, 2}, {0, 1, 2}),
        (TOLD, {0, 1, 2}, {1, 2}),
        (TOLD, {0, 1}, {0, 1}),
        (TOLD, {1, 2}, {1, 2}),
        (TOLD, {0}, {0}),
        (f"x{EMULATED}", {0, 1, 2}, {0, 1, 2}),
    ],
)
def test_an_emulated_hosts_first_cpu_is_left_out(cmdline: str, cpus: set[int], allowed: set[int]) -> None:
    assert allowed_cpus(cmdline, cpus) == allowed


def test_the_callers_own_cpus_come_back() -> None:
    before = os.sched_getaffinity(0)
    with guest_cpus():
        assert os.sched_getaffinity(0) <= before
    assert os.sched_getaffinity(0) == before
