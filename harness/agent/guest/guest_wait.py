# SPDX-License-Identifier: GPL-2.0-or-later
"""From go to the end: follow the probe guest's control page, or a Linux guest's result file."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from harness.agent.guest.actions import Actor, WaitedInVain
from harness.agent.guest.qemu import KILL_SECONDS, Guest, QemuDied
from harness.agent.host.kernel_files import read_text
from harness.agent.host.tracing import FULL, Tracing
from harness.agent.pages.guest_memory import GuestMemory
from harness.contract.gate import rule_of
from harness.contract.plan import Plan, says
from harness.contract.probe_abi import CONTROL_BYTES, LOG_FULL, Control, State, decode_control
from harness.contract.words import EndStatus, HostWord, Release
from harness.errors import UsageError

POLL_SECONDS = 0.003
LOOK_SECONDS = 1.0
"""For a look at QEMU's memory until it is known to wait; its program's deadline may come meanwhile."""
FILLS_SECONDS = 0.1
"""How often the trace's size is looked at: a vCPU that exits for nothing writes some 10 MiB in this time on a fast
machine, and there is room for 64."""
READY_SECONDS = 120.0
"""For a guest to boot; a Linux guest under emulated SVM takes 4 to 14 s."""
_PANICKED = re.compile(r"---\[ end Kernel panic - not syncing: (.*?) \]---")
"""The last line of kernel/panic.c:panic; what the kernel has to say stands before it."""
_REFUSED = re.compile(r"(workload: OUT was refused[^\r\n]*)[\r\n]")
"""guest-images/linux/workload.c:refused: it sleeps from then on."""


@dataclass(frozen=True, slots=True)
class GuestEnd:
    """How the guest's program (or the work on it) ended, and why."""

    status: EndStatus
    reason: str = ""


async def wait_ready(guest: Guest, memory: GuestMemory, nonce: int, seconds: float = READY_SECONDS) -> GuestEnd | None:
    """Until the probe guest spins in READY: None.  Otherwise how it ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        control = await _control(guest, memory)
        if control.is_of(nonce) and control.state == State.READY:
            return None
        if control.is_valid and control.state == State.PANIC:
            # The nonce is 0 then if it was the items file that the guest could not use.
            return GuestEnd(
                EndStatus.GUEST_PANIC, "the probe guest panicked before it was ready, see guest/console.txt"
            )
        if failed := guest.failed_run():
            return _failed_run("before the probe guest was ready", failed)
        await asyncio.sleep(POLL_SECONDS)
    return GuestEnd(EndStatus.GUEST_TIMEOUT, f"the probe guest was not ready within {seconds:g} s")


async def watch_probe(guest: Guest, memory: GuestMemory, plan: Plan, actor: Actor, start: float) -> GuestEnd:
    """Until the guest's program has ended or the plan's deadline is over, and the host actions that it waits for.

    The deadline counts neither what these take, but for ``sleep`` (on a busy machine they can take a minute), nor the
    time in which timed actions keep the machine stopped."""
    answered = 0  # HOST items handed back so far
    acted = 0.0  # seconds
    looks = Looks(guest, memory, apart=reads_wait_for_words(plan))
    control = decode_control(bytes(CONTROL_BYTES), 1)
    while True:
        control = await looks.control() or control
        if control.is_complete(plan.nonce) and control.state == State.DONE:
            return GuestEnd(EndStatus.DONE)
        if control.state == State.PANIC:
            return GuestEnd(EndStatus.GUEST_PANIC, f"the probe guest panicked after {sum(control.counts)} log records")
        if control.state == State.HOST and control.host_entries > answered:
            if control.host_index >= len(plan.host_actions):
                raise UsageError(f"the guest waits for host action {control.host_index}, the plan has none")
            actions, asked = plan.host_actions[control.host_index], time.monotonic()
            try:
                await actor.perform(actions, host=control.host_index)
            except WaitedInVain as exc:  # so that the guest waits for ever
                return GuestEnd(EndStatus.GUEST_TIMEOUT, exc.message)
            answered = control.host_entries
            if looks.apart:
                await asyncio.to_thread(memory.go)
            else:
                memory.go()
            asleep = sum(a.arg for a in actions if a.do is HostWord.SLEEP) / 1000
            acted += max(0.0, time.monotonic() - asked - asleep)  # each of its waits has a bound of its own
            continue
        if failed := guest.failed_run():
            return _failed_run(f"{time.monotonic() - start:.1f} s after go", failed)
        now = time.monotonic()
        not_counted = acted + actor.standing.seconds(now)
        if now > start + not_counted + plan.deadline_s:
            return GuestEnd(
                EndStatus.GUEST_TIMEOUT,
                f"not done {plan.deadline_s} s after go, state {control.state}{_without(not_counted)}",
            )
        await asyncio.sleep(POLL_SECONDS)


def _without(acted: float) -> str:
    return f", {acted:.1f} s of host steps not counted" if acted >= 0.1 else ""


async def watch_result(guest: Guest, path: str, console: str, line: str, seconds: float) -> GuestEnd:
    """Until the Linux guest has written ``line`` (its beginning) to the result port, or has told why it panicked."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = read_text(console) if os.path.exists(console) else ""
        if told := _PANICKED.search(said):
            return GuestEnd(EndStatus.GUEST_PANIC, f"the guest's kernel panicked: {told[1]}")
        if told := _REFUSED.search(said):
            return GuestEnd(EndStatus.GUEST_TIMEOUT, f"the guest can tell nothing more: {told[1]}")
        if os.path.exists(path) and any(x.startswith(line) for x in read_text(path).splitlines()):
            return GuestEnd(EndStatus.DONE)
        if not guest.alive:
            return GuestEnd(EndStatus.QEMU_DIED, guest.death())
        await asyncio.sleep(0.02)
    return GuestEnd(EndStatus.GUEST_TIMEOUT, f"no line {line!r} on the result port within {seconds:g} s")


async def trace_fills(tracing: Tracing, start: float) -> GuestEnd:
    """Until the trace has so much that the rest of the run might be lost; it records nothing more then.

    A vCPU that is entered and exits for nothing, over and over, would leave a trace with holes, by which nothing can be
    judged, long before its deadline.
    """
    while await asyncio.to_thread(tracing.held) < FULL:
        await asyncio.sleep(FILLS_SECONDS)
    tracing.stop()
    return GuestEnd(
        EndStatus.GUEST_TIMEOUT, f"its trace was full ({FULL >> 20} MiB) {time.monotonic() - start:.1f} s after go"
    )


def reads_wait_for_words(plan: Plan) -> bool:
    """Reads are held until the agent says a word.  Whoever waits for one may keep mmap_lock (mm/page_io.c:
    swap_readpage, synchronous until 6.6; do_swap_page of a noio series), and whoever wants to look at QEMU's memory
    waits for that as soon as QEMU wants to map more: it must not be who has to say the word."""
    rule = rule_of(plan.swap)
    return says(plan, HostWord.FREEZE) or (rule is not None and rule.word is Release.STEP)


async def log_fills(
    guest: Guest, memory: GuestMemory, tracing: Tracing | None, start: float, *, apart: bool = False
) -> GuestEnd:
    """Until a vCPU has written so much that the rest of the run might not have room in its log, as one does that
    touches a page for ever which cannot be read.  The trace records nothing more then: the log, which is read behind
    it, has all that it tells of.

    :param apart: see reads_wait_for_words.
    """
    looks, most = Looks(guest, memory, apart), 0
    while most < LOG_FULL:
        if control := await looks.control():
            most = max(control.counts)
        await asyncio.sleep(POLL_SECONDS)
    if tracing is not None:
        tracing.stop()
    return GuestEnd(
        EndStatus.GUEST_TIMEOUT,
        f"a vCPU had written {most} records of its log {time.monotonic() - start:.1f} s after go",
    )


async def first_of(main: Awaitable[GuestEnd], side: Awaitable[None], *cuts: Awaitable[GuestEnd]) -> GuestEnd:
    """``main`` with ``side`` (timed actions) next to it, or what cuts it short; an error of ``side`` is raised."""
    watching, acting = asyncio.ensure_future(main), asyncio.ensure_future(side)
    cutting = [asyncio.ensure_future(cut) for cut in cuts]
    tasks = [watching, acting, *cutting]
    try:
        while not watching.done():
            pending = [t for t in tasks if not t.done()]
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if acting.done():
                acting.result()
            cut = next((t for t in cutting if t.done()), None)
            if cut is not None and not watching.done():
                return cut.result()
        return watching.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed_run(when: str, said: str) -> GuestEnd:
    return GuestEnd(EndStatus.GUEST_TIMEOUT, f"{when} KVM_RUN failed for good ({said}; guest/qemu.txt has the state)")


@dataclass(slots=True)
class Looks:
    """One look at the control page at a time; ``apart``: in a thread of its own (see reads_wait_for_words), which costs
    an emulated machine more than the look does."""

    guest: Guest
    memory: GuestMemory
    apart: bool = False
    _pending: asyncio.Future[Control] | None = None

    async def control(self) -> Control | None:
        """None: the look has to wait, and goes on."""
        if not self.apart:
            return await _control(self.guest, self.memory)
        if self._pending is None:
            self._pending = asyncio.ensure_future(asyncio.to_thread(self.memory.control))
        if not (await asyncio.wait((self._pending,), timeout=LOOK_SECONDS))[0]:
            return None
        seen, self._pending = self._pending, None
        return await _of(self.guest, seen.result)


async def _control(guest: Guest, memory: GuestMemory) -> Control:
    return await _of(guest, memory.control)


async def _of(guest: Guest, look: Callable[[], Control]) -> Control:
    """:raise QemuDied: QEMU has ended."""
    try:
        return look()
    except OSError as exc:
        if not await guest.reaped(KILL_SECONDS):
            raise
        raise QemuDied(guest.death()) from exc
