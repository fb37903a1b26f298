# SPDX-License-Identifier: GPL-2.0-or-later
"""What surrounds a probe guest's program."""

from __future__ import annotations

import os
import threading

import pytest

from harness.agent.guest.probe_run import beside_others, realtime


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have real-time threads")
def test_a_vcpu_thread_is_a_realtime_one_while_the_program_runs_and_no_longer() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    tid = thread.native_id
    assert tid is not None
    try:
        with realtime((tid,)):
            assert os.sched_getscheduler(tid) == os.SCHED_FIFO
            with beside_others((tid,)):  # reclaim waits for a kworker of each processor, which it would not let run
                assert os.sched_getscheduler(tid) == os.SCHED_OTHER
            assert os.sched_getscheduler(tid) == os.SCHED_FIFO
        assert os.sched_getscheduler(tid) == os.SCHED_OTHER
    finally:
        with realtime((tid,)):
            over.set()
            thread.join()  # a thread that ended meanwhile is none that could be put back
