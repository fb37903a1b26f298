# SPDX-License-Identifier: GPL-2.0-or-later
"""What is looked up about calls is what going through all of them says."""

from hypothesis import given
from hypothesis import strategies as st

from harness.model.simulation.recorded import FaultCall
from harness.model.simulation.thread_calls import ThreadCalls

MOMENTS = st.integers(-1, 20)
CALLS = st.lists(st.builds(FaultCall, MOMENTS, MOMENTS, thread=st.integers(0, 3)), max_size=12)


@given(CALLS, st.integers(0, 4), MOMENTS, MOMENTS)
def test_the_same_as_a_look_at_each(calls: list[FaultCall], thread: int, start_ns: int, end_ns: int) -> None:
    each = [c for c in calls if c.thread != thread and start_ns < c.end_ns and c.start_ns < end_ns]
    found = ThreadCalls.of(calls).beside(thread, start_ns, end_ns)
    assert len(found) == len(each) and all(call in each for call in found)
