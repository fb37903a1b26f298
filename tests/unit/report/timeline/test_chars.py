# SPDX-License-Identifier: GPL-2.0-or-later
"""The timeline in characters."""

from __future__ import annotations

import pytest

from harness.report.timeline.build_timeline import build_timeline
from harness.report.timeline.chars import chars
from harness.report.timeline.drawing import ArrowKind, Lane, Look, Picture, Span, Timeline
from tests.unit.report.judged import golden


def test_a_column_for_each_share_of_the_time() -> None:
    lane = Lane("v0", "vCPU 0", (Span(0, 20, Look.GUEST), Span(20, 40, Look.HALTED), Span(40, 60, Look.IDLE)))
    lines = chars(Timeline("t", 0, 60, Picture((lane,), ())), 19 + 60)
    (drawn,) = [line for line in lines if line.startswith("vCPU 0")]
    assert drawn.split(maxsplit=2)[2] == "=" * 20 + "H" * 21 + "." * 19  # a halt is told of each column that it is in


@pytest.mark.parametrize("width", [60, 80, 110, 200])
@pytest.mark.parametrize("name", ["S23", "S29", "S61"])
def test_every_line_fits_and_both_sides_are_there(name: str, width: int) -> None:
    timeline = build_timeline(golden("captures", name))
    assert timeline is not None
    lines = chars(timeline, width)
    assert all(len(line) <= width for line in lines)
    assert sum(line.startswith("-- ") for line in lines) == 2
    assert sum(line.startswith("vCPU 0 ") for line in lines) == 2


def test_faults_tokens_and_readies_are_marked_below_their_vcpu() -> None:
    timeline = build_timeline(golden("captures", "S29"))
    assert timeline is not None
    lines = chars(timeline, 150)
    under = lines[next(n for n, line in enumerate(lines) if line.startswith("vCPU 0")) + 1]
    assert under.count("T") == sum(a.kind is ArrowKind.TOKEN for a in timeline.seen.arrows) == 1
    assert under.count("R") == 1
    assert under.strip().startswith("^")
