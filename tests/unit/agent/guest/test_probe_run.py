# SPDX-License-Identifier: GPL-2.0-or-later
"""What surrounds a probe guest's program."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.agent.guest import guest_wait, probe_run
from harness.agent.guest.actions import Actor, Standing
from harness.agent.guest.guest_wait import GuestEnd, first_of, log_fills, reads_wait_for_words, watch_probe
from harness.agent.guest.probe_run import beside_others, realtime
from harness.agent.guest.qemu import Guest
from harness.agent.pages.guest_memory import GuestMemory, ProcessMemory
from harness.contract.plan import HostAction, HostWord, Swap, SwapKind, TimedAction
from harness.contract.probe_abi import CONTROL_GPA, CONTROL_PAGE, LOG_FULL
from harness.contract.words import EndStatus
from tests.unit.agent.conftest import make_plan, needs_qemu, root_only
from tests.unit.agent.guest.test_qemu import with_guest
from tests.unit.waiting import HANG_S


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
def test_a_run_ends_before_a_vcpu_has_no_room_in_its_log(
    records: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(guest: Guest) -> None:
        with ProcessMemory(guest.pid) as memory:
            there = GuestMemory(memory, await guest.ram_base(), 2)
            there.write_page(CONTROL_GPA + CONTROL_PAGE.at("log_count").offset, struct.pack("<2I", 7, records))

            looks: list[object] = []

            def looked() -> object:
                looks.append(look())
                return looks[-1]

            async def done() -> GuestEnd:
                while records == LOG_FULL or len(looks) < 3:
                    await asyncio.sleep(0.01)
                return GuestEnd(EndStatus.DONE)

            look = there.control
            monkeypatch.setattr(there, "control", looked)
            fills = log_fills(guest, there, None, time.monotonic())
            end = await asyncio.wait_for(first_of(done(), asyncio.sleep(0), fills), HANG_S)
            if records < LOG_FULL:
                assert end.status is EndStatus.DONE
            else:
                assert end.status is EndStatus.GUEST_TIMEOUT
                assert end.reason.startswith(f"a vCPU had written {records} records of its log")

    with_guest(tmp_path, act)


@pytest.mark.parametrize(
    ("release", "word", "wait"),
    [("step", HostWord.STOP, True), ("np", HostWord.STOP, False), ("np", HostWord.FREEZE, True)],
)
def test_who_may_have_to_say_the_word_does_not_wait_for_it(release: str, word: HostWord, wait: bool) -> None:
    plan = make_plan(timed=(TimedAction(100, (HostAction(word, 0),)),))
    assert reads_wait_for_words(replace(plan, swap=Swap(kind=SwapKind.GATED, release=release))) is wait


class HeldMemory:
    """That of a QEMU that wants to map more, while somebody who waits for a read keeps mmap_lock."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.waited_in_vain = False

    def control(self) -> object:
        self.waited_in_vain |= not self.let_go.wait(HANG_S)
        return SimpleNamespace(counts=(LOG_FULL,))


def test_a_look_at_memory_that_has_to_wait_keeps_no_word_from_being_said() -> None:
    memory = HeldMemory()

    async def words() -> None:
        await asyncio.sleep(0.05)
        memory.let_go.set()

    async def both() -> None:
        there = cast(GuestMemory, memory)
        look = log_fills(cast(Guest, None), there, None, time.monotonic(), apart=True)
        end, _ = await asyncio.gather(look, words())
        assert end.status is EndStatus.GUEST_TIMEOUT

    asyncio.run(both())
    assert not memory.waited_in_vain


def test_a_deadline_comes_though_memory_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The read that its reader waits for may be that of a word which is never said."""
    monkeypatch.setattr(guest_wait, "LOOK_SECONDS", 0.05)
    memory = HeldMemory()
    plan = replace(make_plan(deadline_s=1), swap=Swap(kind=SwapKind.GATED, release="step"))
    guest = cast(Guest, SimpleNamespace(failed_run=lambda: ""))
    actor = cast(Actor, SimpleNamespace(standing=Standing()))

    async def watch() -> GuestEnd:
        end = await watch_probe(guest, cast(GuestMemory, memory), plan, actor, time.monotonic())
        memory.let_go.set()
        return end

    end = asyncio.run(watch())
    assert end.status is EndStatus.GUEST_TIMEOUT and "not done 1 s after go" in end.reason
    assert not memory.waited_in_vain


@pytest.mark.parametrize("held", [True, False])
def test_everything_passes_before_memory_is_read_that_cannot_be(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a run that did not come to its own."""
    monkeypatch.setattr(probe_run, "_LOOK_SECONDS", 0.05 if held else HANG_S)
    memory, said = HeldMemory(), list[str]()
    if not held:
        memory.let_go.set()

    def release() -> None:
        said.append("release")
        memory.let_go.set()

    session: Any = SimpleNamespace(collect_gate=lambda: said.append("gate"), release=release)
    probe_run._make_readable(session, cast(GuestMemory, memory))
    assert said == (["gate", "release"] if held else []) and not memory.waited_in_vain
