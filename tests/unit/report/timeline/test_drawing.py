# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows and windows of lanes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.report.timeline.drawing import Lane, Look, Span, cut, packed

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1])), max_size=30)


@given(SPANS.map(sorted))
def test_nothing_overlaps_in_a_row_and_no_row_is_without_need(spans: list[tuple[int, int]]) -> None:
    rows = packed(spans)
    for i, (start, end) in enumerate(spans):
        for j in range(i):
            if rows[i] == rows[j]:
                assert spans[j][1] <= start, (spans[j], (start, end))
    at_once = [1 + sum(end > start for _, end in spans[:i]) for i, (start, _) in enumerate(spans)]
    assert max(rows, default=-1) + 1 == max(at_once, default=0)


@given(SPANS, st.integers(0, 60), st.integers(0, 60))
def test_a_cut_lane_lies_in_its_window(spans: list[tuple[int, int]], a: int, b: int) -> None:
    lane = Lane("v0", "vCPU 0", tuple(Span(s, e, Look.GUEST) for s, e in spans))
    low, high = min(a, b), max(a, b)
    for span in cut(lane, low, high).spans:
        assert low <= span.start_ns <= span.end_ns <= high
