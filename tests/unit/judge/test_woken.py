# SPDX-License-Identifier: GPL-2.0-or-later
"""Who wakes a vCPU's thread, in a capture that has it (S79 on 7.3: sixteen vCPUs on one page)."""

from __future__ import annotations

import re

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.golden import Files, edit_trace
from tests.unit.judge.packed import packed_capture

_WOKEN = re.compile(r"sched_waking: comm=.* pid=(\d+) ")


def _files() -> Files:
    return packed_capture("S79+nowait-7.3")


def test_a_sound_kernel_wakes_whom_it_has_to() -> None:
    files = _files()
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS and not {u.rule for u in verdict.unchecked} & {"D52", "D53"}


def test_a_sched_waking_that_is_lost_is_damage() -> None:
    """Each alone, with the counts made to agree: the thread runs again, and nobody has woken it."""
    files = _files()
    lines = files["trace/events.txt"].decode().splitlines()
    before = [n for n, line in enumerate(lines) if _WOKEN.search(line) and _slept_alone(lines, n)]
    assert len(before) > 10
    for number in before:
        cut = edit_trace(files, lambda all_, number=number: all_[:number] + all_[number + 1 :])
        verdict = judge_capture(cut, model_of(cut, "nowait"))
        assert verdict.status is Status.INCONCLUSIVE and "nobody has woken it" in verdict.reason, lines[number]


def _slept_alone(lines: list[str], number: int) -> bool:
    """The thread runs again in the trace, and no other sched_waking says why."""
    found = _WOKEN.search(lines[number])
    assert found is not None
    thread = found[1]
    behind = next((n for n in range(number, len(lines)) if f"next_pid={thread} " in lines[n]), len(lines))
    slept = [n for n in range(behind) if re.search(rf"prev_pid={thread} .*prev_state=[SD] ", lines[n])]
    own = [n for n in range(max(slept, default=0)) if f"-{thread} " in lines[n].split("[")[0]]
    others = [n for n in range(max(own, default=0), behind) if f" pid={thread} " in lines[n] and n != number]
    return behind < len(lines) and bool(slept) and not others
