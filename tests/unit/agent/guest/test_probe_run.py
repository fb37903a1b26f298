# SPDX-License-Identifier: GPL-2.0-or-later
"""What surrounds a probe guest's program."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
from pathlib import Path

import pytest

from harness.agent.guest.guest_wait import GuestEnd, first_of, log_fills
from harness.agent.guest.probe_run import beside_others, realtime
from harness.agent.guest.qemu import Guest
from harness.agent.pages.guest_memory import GuestMemory, ProcessMemory
from harness.contract.probe_abi import CONTROL_GPA, CONTROL_PAGE, LOG_FULL
from harness.contract.words import EndStatus
from tests.unit.agent.conftest import needs_qemu, root_only
from tests.unit.agent.guest.test_qemu import with_guest


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


@needs_qemu
@root_only
@pytest.mark.parametrize("records", [LOG_FULL - 1, LOG_FULL])
def test_a_run_ends_before_a_vcpu_has_no_room_in_its_log(records: int, tmp_path: Path) -> None:
    async def act(guest: Guest) -> None:
        with ProcessMemory(guest.pid) as memory:
            there = GuestMemory(memory, await guest.ram_base(), 2)
            there.write_page(CONTROL_GPA + CONTROL_PAGE.at("log_count").offset, struct.pack("<2I", 7, records))

            async def done() -> GuestEnd:
                await asyncio.sleep(0.5)
                return GuestEnd(EndStatus.DONE)

            end = await first_of(done(), asyncio.sleep(0), log_fills(guest, there, None, time.monotonic()))
            if records < LOG_FULL:
                assert end.status is EndStatus.DONE
            else:
                assert end.status is EndStatus.GUEST_TIMEOUT
                assert end.reason.startswith(f"a vCPU had written {records} records of its log")

    with_guest(tmp_path, act)
