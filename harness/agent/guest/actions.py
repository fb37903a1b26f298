# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent does on the host while the guest runs: plan.HostAction and plan.TimedAction."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import assert_never

from harness.agent.capture_folder import Capture
from harness.agent.gate.control import Gate
from harness.agent.guest.qemu import Guest
from harness.agent.host.kernel_files import PAGE, read_text
from harness.agent.host.swap import Device
from harness.agent.host.tracing import Tracing
from harness.agent.host.undo import Journal
from harness.agent.pages.reclaim_page import reclaim_page
from harness.contract.capture import AgentStep, StepDetails
from harness.contract.plan import HostAction, HostWord, TimedAction
from harness.errors import DeadlineExpired, InfraFault, UsageError

WAIT_SECONDS = 30.0
_LOOK_SECONDS = 0.01
_VCPU = re.compile(r"CPU \d+/KVM")
"""Name of a vCPU thread (QEMU's accel/kvm/kvm-accel-ops.c:kvm_start_vcpu_thread)."""
_LOCK_READ_SECONDS = 5.0
_HEED_SECONDS = 1.0
_CHANGE_MM_SECONDS = 10.0
"""Fewer than the gate holds a read."""
_CLEAR_REFS = "/proc/{pid}/clear_refs"


class WaitedInVain(DeadlineExpired):
    """What a word waits for did not come, which is the guest's or its kernel's affair: the judge says whose."""


@dataclass(slots=True)
class Standing:
    """How long lists of timed actions have kept the machine stopped, in seconds: its program cannot use that time.  A
    list that never lets it go on counts until it is over."""

    past: float = 0.0
    since: float | None = None

    def begin(self, now: float) -> None:
        if self.since is None:
            self.since = now

    def end(self, now: float) -> None:
        if self.since is not None:
            self.past += now - self.since
            self.since = None

    def seconds(self, now: float) -> float:
        return self.past + (now - self.since if self.since is not None else 0.0)


@dataclass(slots=True)
class Actor:
    """Everything an action may need.  ``perform`` runs a list of actions in order."""

    journal: Journal
    capture: Capture
    guest: Guest
    tracing: Tracing | None
    device: Device | None
    delay_ms: int
    ram_path: str = ""
    plugged: Callable[[int, int], None] = lambda _vcpu, _tid: None  # a vCPU has a new thread
    # while in it, each processor has time for what the host does on all of them
    beside_others: Callable[[], AbstractContextManager[None]] = nullcontext
    standing: Standing = field(default_factory=Standing)
    # lists run beside each other, and what one says of the device holds before another says something else
    device_turns: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def perform(
        self, actions: Sequence[HostAction], *, host: int | None = None, timed: int | None = None
    ) -> None:
        """``host``, ``timed``: where in the plan they stand.

        :raise WaitedInVain: so it did. :raise InfraFault: an action failed. :raise UsageError: the plan lacks what one
            needs.
        """
        try:
            for action in actions:
                await self._perform(action, StepDetails(do=action.do, arg=action.arg, host=host, timed=timed))
        finally:  # also where it goes no further: the guest's deadline comes then
            if timed is not None:
                self.standing.end(time.monotonic())

    async def _perform(self, action: HostAction, details: StepDetails) -> None:
        # Not into the trace: everything in it is the kernel's.  ``mono`` of a step has the trace clock.
        self.capture.step(AgentStep.HOST_ACTION, details)
        if details.timed is not None and action.do is HostWord.STOP:
            self.standing.begin(time.monotonic())
        try:
            await self._one(action)
        except WaitedInVain:
            raise
        except DeadlineExpired as exc:
            if await asyncio.to_thread(vcpu_asleep, self.guest.pid):
                raise WaitedInVain(f"{exc.message}; a vCPU thread sleeps for a page") from exc
            if await asyncio.to_thread(self._keeps_qemu_waiting):
                raise WaitedInVain(
                    f"{exc.message}; QEMU waits for a read that is held, or for mmap_lock, which its reader keeps:"
                    " let it go before, or by a [[timed]] entry"
                ) from exc
            if await asyncio.to_thread(vcpu_deaf, self.guest.pid):
                raise WaitedInVain(f"{exc.message}; a vCPU thread does not heed its signal") from exc
            raise
        except InfraFault as exc:  # QEMU refuses what its dead machine cannot do (runstate_needs_reset)
            if failed := self.guest.failed_run():
                raise WaitedInVain(f"{exc.message}; KVM_RUN failed for good ({failed})") from exc
            raise
        if details.timed is not None and action.do is HostWord.CONT:
            self.standing.end(time.monotonic())
        self.capture.step(AgentStep.HOST_ACTION_DONE, details)

    async def _one(self, action: HostAction) -> None:
        match action.do:
            case HostWord.FREEZE | HostWord.THAW | HostWord.DELAY:
                async with self.device_turns:
                    await self._hold(action)
            case HostWord.RELEASE:
                await asyncio.to_thread(self._gate().ask, "release")
            case HostWord.STOP:
                await self.guest.stop()
            case HostWord.CONT:
                await self.guest.cont()
            case HostWord.RESET:
                await self.guest.reset()
            case HostWord.NMI:
                await self.guest.nmi()
            case HostWord.PLUG:
                self.plugged(action.arg, await self.guest.plug(action.arg))
            case HostWord.SAVEVM:
                await self._save()
            case HostWord.LOADVM:
                await self._load()
            case HostWord.SLEEP:
                await asyncio.sleep(action.arg / 1000)
            case HostWord.WAIT_NP:
                await self._wait(action.do, lambda: self._events().outstanding() >= action.arg)
            case HostWord.WAIT_DONE:
                await self._wait(action.do, self._all_done)
            case HostWord.WAIT_SETTLED:
                await self._wait(action.do, lambda: bool(self._gate().ask("seen")["settled"]))
            case HostWord.WAIT_HALTED:
                await self._wait(action.do, lambda: int(self._gate().ask("seen")["halted"]) >= action.arg)
            case HostWord.SYNC:
                for _ in range(action.arg):
                    await self.guest.sync()
            case HostWord.LOCK_READ:
                await asyncio.to_thread(self._lock_read, action.arg)
            case HostWord.CHANGE_MM:
                await asyncio.to_thread(change_mm, self.guest.pid)
            case HostWord.RECLAIM:
                base = await self.guest.ram_base()
                with self.beside_others():  # mm/swap.c:lru_add_drain_all waits for a kworker of each processor
                    await asyncio.to_thread(reclaim_page, self._file(), self.guest.pid, base, action.arg)
            case _:
                assert_never(action.do)

    async def _hold(self, action: HostAction) -> None:
        """What becomes of the reads from now on."""
        device = self._holding()
        if action.do is HostWord.FREEZE:
            await asyncio.to_thread(device.hold, self.journal)
        elif action.do is HostWord.THAW:
            await asyncio.to_thread(device.go_on, self.journal, self.delay_ms)
        else:
            self.delay_ms = action.arg
            await asyncio.to_thread(device.set_delay, self.journal, action.arg)

    async def _save(self) -> None:
        """The thread of QEMU's that reads the guest's memory is no vCPU: a gated source has to know that it comes."""
        gate = self.device.gate if self.device is not None else None
        if gate is not None:
            await asyncio.to_thread(gate.ask, "saving", on=True)
        await self.guest.savevm()
        if gate is not None:
            await asyncio.to_thread(gate.ask, "saving", on=False)

    async def _load(self) -> None:
        """What was outstanding before is no more; a gated source has to know, as no trace says so."""
        await self.guest.loadvm()
        if self.device is not None and self.device.gate is not None:
            await asyncio.to_thread(self.device.gate.ask, "loaded")

    def _holding(self) -> Device:
        if self.device is None or not self.device.holds:
            raise UsageError("freeze, thaw and delay need a gated or dm-delay device in the plan")
        return self.device

    def _gate(self) -> Gate:
        if self.device is None or self.device.gate is None:
            raise UsageError("release, wait-settled and wait-halted need a gated source in the plan")
        return self.device.gate

    async def _wait(self, word: HostWord, come: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not await asyncio.to_thread(come):
            if time.monotonic() > end:
                raise WaitedInVain(f"what {word} waits for did not come within {WAIT_SECONDS:g} s")
            await asyncio.sleep(_LOOK_SECONDS)

    def _keeps_qemu_waiting(self) -> bool:
        """Whether another thread of QEMU's sleeps while reads are held: who waits for one may have mmap_lock."""
        gate = self.device.gate if self.device is not None else None
        return gate is not None and gate.held() > 0 and asleep(self.guest.pid)

    def _events(self) -> Tracing:
        if self.tracing is None:
            raise UsageError("what happens on the host is known by its trace, and this host has none")
        return self.tracing

    def _all_done(self) -> bool:
        return self._events().uncompleted() == 0

    def _file(self) -> str:
        if not self.ram_path:
            raise UsageError("lock-read and reclaim need RAM in a file")
        return self.ram_path

    def _lock_read(self, gpa: int) -> None:
        """Read a page of the RAM file from a thread of ours, and return as soon as that sleeps on the device."""
        fd = open_for_single_reads(self._file())
        started: list[int] = []

        def read() -> None:
            started.append(threading.get_native_id())
            try:
                os.pread(fd, PAGE, gpa)
            finally:
                os.close(fd)

        reader = threading.Thread(target=read, daemon=True, name="lock-read")
        reader.start()
        end = time.monotonic() + _LOCK_READ_SECONDS
        while time.monotonic() < end and reader.is_alive():
            if started and _state(started[0]) == "D":
                return
            time.sleep(0.001)
        raise InfraFault(f"lock-read of {gpa:#x} did not sleep on the device: something has read the page before")


def change_mm(pid: int) -> None:
    """Have this process's mmap_lock for writing, by what changes nothing else: its highest resident set is forgotten
    (fs/proc/task_mmu.c:clear_refs_write, CLEAR_REFS_MM_HIWATER_RSS).

    :raise WaitedInVain: another keeps the lock.
    :raise InfraFault: the host's kernel has no such file (CONFIG_PROC_PAGE_MONITOR), or refuses it.
    """
    failed: list[OSError] = []

    def write() -> None:
        try:
            with open(_CLEAR_REFS.format(pid=pid), "w", encoding="ascii") as file:
                file.write("5")
        except OSError as exc:
            failed.append(exc)

    writer = threading.Thread(target=write, daemon=True, name="change-mm")
    writer.start()
    writer.join(_CHANGE_MM_SECONDS)
    if writer.is_alive():
        raise WaitedInVain(f"mmap_lock of the VMM was not to be had within {_CHANGE_MM_SECONDS:g} s")
    if failed:
        raise InfraFault(f"change-mm: {failed[0]}") from failed[0]


def open_for_single_reads(path: str) -> int:
    """Opened so that a read brings its page and no other: where pages before it are cached, page_cache_sync_ra
    (mm/readahead.c; before 6.12 ondemand_readahead) takes it for one of a stream, and reads ahead."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return fd


def vcpu_asleep(pid: int) -> bool:
    """Whether a vCPU thread of this QEMU's sleeps as one does that waits for a page.  QEMU waits for it with all that
    needs it out of KVM_RUN (its cpus.c:do_run_on_cpu, pause_all_vcpus), and answers nothing meanwhile."""
    return asleep(pid, _VCPU)


def asleep(pid: int, name: re.Pattern[str] = re.compile(".*")) -> bool:
    """Whether a thread of this QEMU's that has such a name is in TASK_UNINTERRUPTIBLE."""
    try:
        tids = [int(each) for each in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return False
    return any(name.fullmatch(_stat(tid, pid)[0]) and _state(tid, pid) == "D" for tid in tids)


def vcpu_deaf(pid: int) -> bool:
    """Whether a vCPU thread of this QEMU's runs, or sleeps, with the same signal pending as before: the kernel does not
    let it out of KVM_RUN.  One that is given no processor has not come to it."""
    before = _pending(pid)
    time.sleep(_HEED_SECONDS)
    after = _pending(pid)
    return any(
        after[tid][0] == signals and (after[tid][1] != ran or _state(tid, pid) in "SD")
        for tid, (signals, ran) in before.items()
        if signals and tid in after
    )


def _pending(pid: int) -> dict[int, tuple[int, str]]:
    """By vCPU thread, the signals that are pending for it alone, and for how long it has run."""
    try:
        tids = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        return {tid: _signals(pid, tid) for tid in tids if _VCPU.fullmatch(_stat(tid, pid)[0])}
    except OSError:
        return {}


def _signals(pid: int, tid: int) -> tuple[int, str]:
    status = read_text(f"/proc/{pid}/task/{tid}/status")
    (mask,) = re.findall(r"^SigPnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return int(mask, 16), read_text(f"/proc/{pid}/task/{tid}/schedstat").split()[0]


def _state(tid: int, pid: int | str = "self") -> str:
    return _stat(tid, pid)[1]


def _stat(tid: int, pid: int | str) -> tuple[str, str]:
    """Name and state of a thread; empty: it is gone."""
    try:
        name, _, rest = read_text(f"/proc/{pid}/task/{tid}/stat").rpartition(")")
    except OSError:
        return "", ""
    return name.partition("(")[2], rest.split()[0]


async def perform_timed(actor: Actor, timed: Sequence[TimedAction], start: float) -> None:
    """The plan's timed actions, each entry ``at_ms`` after ``start`` (CLOCK_MONOTONIC seconds), whether or not an
    earlier one is over: what that waits for may be in a later one.

    An entry whose wait is in vain goes no further; the guest's deadline is the run's."""

    async def at(number: int, entry: TimedAction) -> None:
        await asyncio.sleep(max(0.0, start + entry.at_ms / 1000 - time.monotonic()))
        with suppress(WaitedInVain):
            await actor.perform(entry.actions, timed=number)

    numbered = sorted(enumerate(timed), key=lambda each: each[1].at_ms)
    tasks = [asyncio.ensure_future(at(number, entry)) for number, entry in numbered]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
