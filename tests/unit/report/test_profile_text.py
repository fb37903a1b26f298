# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of where a run's time went."""

from __future__ import annotations

from harness.report.profile_text import REST, ScenarioTimes, profile_text

TIMES = [
    ScenarioTimes("S20 on a", 4.0, {"go": 1.0, "undo": 2.0, REST: 1.0}),
    ScenarioTimes("S21 on a", 2.0, {"go": 1.5, REST: 0.5}),
]


def test_steps_are_ordered_by_all_their_time() -> None:
    lines = profile_text(TIMES, 5.0).splitlines()
    assert "6.0 s of work in 5.0 s" in lines[0] and "3.00 s in the median, 4.00 s at most" in lines[0]
    assert [line[:24].strip() for line in lines[3:6]] == ["go", "undo", REST]
    assert lines[3].split()[1:] == ["2.5", "41.7%", "1.25", "1.50", "2"]
    assert lines[-2].endswith("S20 on a (2.00 s of it undo)")


def test_a_run_without_steps_says_so() -> None:
    assert "no scenario" in profile_text([], 1.0)
