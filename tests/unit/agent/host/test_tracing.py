# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read from trace text."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from harness.agent.guest.guest_wait import GuestEnd, first_of, trace_fills
from harness.agent.host.kernel_files import read_once, write_text
from harness.agent.host.tracing import COUNTED, Tracing, Watch, outstanding, uncompleted
from harness.contract.words import EndStatus
from tests.unit.agent.conftest import root_only
from tests.unit.waiting import HANG_S

NP = " CPU 0/KVM-163 [000] ..... 14.2: kvm_async_pf_not_present: token 0x{0:x} gva 0x1000\n"
READY = " CPU 0/KVM-163 [000] ..... 14.3: kvm_async_pf_ready: token 0x{0:x} gva 0x1000\n"


DONE = " kworker/0:1-14 [000] ..... 14.3: kvm_async_pf_completed: gva 0x1000 address 0x7f75f0e01000\n"


def test_uncompleted() -> None:
    assert uncompleted("# tracer: nop\n") == 0
    trace = NP.format(0x1000) + NP.format(0x2000)
    assert uncompleted(trace + READY.format(0xFFFFFFFF)) == 2
    assert uncompleted(trace + DONE + READY.format(0x1000)) == 1


def test_outstanding() -> None:
    assert outstanding("# tracer: nop\n") == 0
    trace = READY.format(0xFFFFFFFF) + NP.format(0x1000) + NP.format(0x2000)
    assert outstanding(trace) == 2
    assert outstanding(trace + READY.format(0x1000)) == 1
    assert outstanding(trace + READY.format(0xFFFFFFFF)) == 2


def test_what_is_counted_is_not_looked_for_in_all_of_the_trace(tmp_path: Path) -> None:
    """A vCPU whose halts end at once made 24 MiB of trace while the agent looked for the end of two works in it."""
    for name in ("whole", "short"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tracing_on").write_text("0")
    short = Watch(str(tmp_path / "short"), COUNTED)
    tracing = Tracing(str(tmp_path), str(tmp_path / "whole"), COUNTED, short)
    (tmp_path / "short" / "trace").write_text("of the plan before")
    tracing.start()
    assert (tmp_path / "short" / "trace").read_text() == ""
    assert [(tmp_path / n / "tracing_on").read_text() for n in ("whole", "short")] == ["1", "1"]
    (tmp_path / "short" / "trace").write_text(NP.format(0x1000) + NP.format(0x2000) + DONE)
    assert not (tmp_path / "whole" / "trace").exists()
    assert (tracing.outstanding(), tracing.uncompleted()) == (2, 1)
    tracing.stop()
    assert [(tmp_path / n / "tracing_on").read_text() for n in ("whole", "short")] == ["0", "0"]


def seen(tracing: Tracing, folder: Path) -> set[str]:
    """Which of the events 20 sleeps of ours have caused."""
    tracing.start()
    for _ in range(20):
        time.sleep(0.001)
    tracing.stop()
    tracing.save(str(folder / "events.txt"))
    lines = (folder / "events.txt").read_text().splitlines()
    return {line.split(": ")[1].split(":")[0] for line in lines if not line.startswith("#")}


@root_only
def test_a_renewed_instance_is_empty_and_leaves_out_what_it_is_told_to(instance: Tracing, tmp_path: Path) -> None:
    assert seen(instance.renew(), tmp_path) == {"sched_switch", "sched_wakeup"}
    less = instance.renew(["sched/sched_switch"])
    assert less.events == ("sched/sched_wakeup",)
    assert less.stats().entries == 0
    assert seen(less, tmp_path) == {"sched_wakeup"}
    assert seen(instance.renew(), tmp_path) == {"sched_switch", "sched_wakeup"}


@root_only
def test_a_trace_that_is_too_long_ends_with_a_whole_line_and_says_what_it_has_not(
    instance: Tracing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.renew()
    seen(instance, tmp_path)
    whole = (tmp_path / "events.txt").read_bytes()
    monkeypatch.setattr("harness.agent.host.tracing.MOST_TRACE", len(whole) // 2)
    stats = instance.save(str(tmp_path / "events.txt"))
    kept = (tmp_path / "events.txt").read_bytes()
    assert unnamed(whole)[: len(unnamed(kept))] == unnamed(kept)
    assert kept.endswith(b"\n") and len(whole) // 2 - 300 < len(kept) <= len(whole) // 2
    counted = sum(not row.startswith(b"#") for row in kept.splitlines())
    assert stats.entries == counted + stats.lost and stats.lost > 0
    monkeypatch.setattr("harness.agent.host.tracing.MOST_TRACE", len(whole))
    assert instance.save(str(tmp_path / "events.txt")).lost == 0
    assert unnamed((tmp_path / "events.txt").read_bytes()) == unnamed(whole)


def unnamed(text: bytes) -> list[bytes]:
    """The lines without the names of threads, 16 columns: the kernel knows one for each thread id, the last, and it is
    another when the thread executes a program, or its id is used again (kernel/trace/trace.c:trace_save_cmdline)."""
    return [line[16:] for line in text.splitlines()]


@root_only
def test_statistics_that_grow_are_read_at_once(instance: Tracing) -> None:
    """The kernel makes them anew at each read(2): what is read behind their end is what they have grown by."""
    instance.renew()
    cpu = next(iter(os.sched_getaffinity(0)))
    path, allowed = f"{instance.path}/per_cpu/cpu{cpu}/stats", os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    fd = os.open(path, os.O_RDONLY)
    try:
        begin = os.read(fd, 4096)
        instance.start()
        while len(read_once(path)) <= len(begin):
            time.sleep(0.001)
        instance.stop()
        assert os.read(fd, 4096)  # not the end of the file
    finally:
        os.close(fd)
        os.sched_setaffinity(0, allowed)
    assert read_once(path).count("bytes:") == 1 and read_once(path).endswith("\n")
    assert instance.held() > 0


@root_only
def test_a_run_ends_before_its_trace_has_a_hole(instance: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    instance.renew()
    write_text(f"{instance.path}/buffer_size_kb", "16384")  # room for what comes while this process stands still
    monkeypatch.setattr("harness.agent.guest.guest_wait.FULL", 2 * instance.held() + 20_000)
    over = threading.Event()
    busy = threading.Thread(target=lambda: all(not over.wait(0.0005) for _ in iter(over.is_set, True)))

    async def run() -> GuestEnd:
        instance.start()
        busy.start()
        never: asyncio.Future[GuestEnd] = asyncio.get_running_loop().create_future()
        return await first_of(never, asyncio.sleep(0), trace_fills(instance, time.monotonic()))

    try:
        end = asyncio.run(asyncio.wait_for(run(), HANG_S))
    finally:
        over.set()
        busy.join()
    assert end.status is EndStatus.GUEST_TIMEOUT and "trace was full" in end.reason
    entries = instance.stats().entries
    assert entries > 200 and instance.stats().lost == 0
    time.sleep(0.01)
    assert instance.stats().entries == entries  # nothing is recorded any more
