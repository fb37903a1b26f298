# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules about totals: for each, what keeps it and what breaks only it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.model.protocol_notation import BOTH, SET_UP, STANDARD, run

TAKEN = {"pf_taken": 2, "pf_fixed": 2, "pf_spurious": 0, "pf_emulate": 0}
CASES: dict[str, tuple[str, Mapping[str, object], Mapping[str, object]]] = {
    "D35 a prefetch is counted, too": (
        BOTH,
        {"kvm_stats": TAKEN, "all_recorded": True},
        {"kvm_stats": {**TAKEN, "pf_taken": 3}, "all_recorded": True},
    ),
    "D35 not all are recorded": (
        BOTH,
        {"kvm_stats": {**TAKEN, "pf_taken": 3}},
        {"kvm_stats": {**TAKEN, "pf_taken": 3}, "all_recorded": True},
    ),
    "D35 an entry that is not counted as fixed": (
        BOTH,
        {"kvm_stats": {**TAKEN, "pf_fixed": 1}, "all_recorded": True, "unfixed": 1},
        {"kvm_stats": {**TAKEN, "pf_fixed": 0}, "all_recorded": True, "unfixed": 1},
    ),
    "D28 a WARN_ON_ONCE that this boot has reached before": (
        BOTH,
        {"host_warns": ("at_fault",), "host_trouble": (), "warn_once_cleared": False},
        {"host_warns": ("at_fault",), "host_trouble": ()},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_keeps_it_and_one_breaks_it(name: str) -> None:
    text, good, bad = CASES[name]
    assert run(f"{SET_UP} {text}", good, STANDARD)[0] == set()
    assert run(f"{SET_UP} {text}", bad, STANDARD)[0] == {name[:3]}
