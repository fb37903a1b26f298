# SPDX-License-Identifier: GPL-2.0-or-later
"""What is looked up about spans is what going through all of them says."""

from hypothesis import given
from hypothesis import strategies as st

from harness.model.simulation.thread_spans import ThreadSpans

MOMENTS = st.integers(0, 20)
SPANS = st.lists(st.tuples(st.integers(0, 3), MOMENTS, MOMENTS), max_size=12)


@given(SPANS, st.integers(0, 4), MOMENTS, MOMENTS)
def test_the_same_as_a_look_at_each(spans: list[tuple[int, int, int]], thread: int, start_ns: int, end_ns: int) -> None:
    each = any(other != thread and begin <= end_ns and start_ns <= end for other, begin, end in spans)
    assert ThreadSpans.of(spans).beside(thread, start_ns, end_ns) is each
