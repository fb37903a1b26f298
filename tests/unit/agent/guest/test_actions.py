# SPDX-License-Identifier: GPL-2.0-or-later
"""What timed actions take of the program's time."""

from __future__ import annotations

from harness.agent.guest.actions import Standing


def test_the_time_between_stop_and_cont_is_none_of_the_programs() -> None:
    standing = Standing()
    assert standing.seconds(5.0) == 0.0
    standing.begin(10.0)
    standing.begin(11.0)  # another list stops what stands
    assert standing.seconds(12.5) == 2.5
    standing.end(14.0)
    standing.end(15.0)  # of that other list
    assert standing.seconds(20.0) == 4.0
    standing.begin(21.0)
    standing.end(22.0)
    assert standing.seconds(30.0) == 5.0
