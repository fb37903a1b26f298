# SPDX-License-Identifier: GPL-2.0-or-later
"""Perform a plan with a Linux guest: its own /init runs the workload and writes to the result port (0xe9)."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from harness.agent.guest.actions import Actor, perform_timed
from harness.agent.guest.cmdline import GuestFiles, build_qemu_argv
from harness.agent.guest.guest_wait import READY_SECONDS, GuestEnd, first_of, watch_result
from harness.agent.guest.qemu import Guest, start_guest
from harness.agent.host.cgroup import ScenarioCgroup
from harness.agent.host.read_counters import swap_cached_pages
from harness.agent.host.tracing import Tracing
from harness.agent.pages.pageout import PreconditionFailed, held_still, swap_everything_out
from harness.agent.session import BOOT_WORKLOAD, Session
from harness.contract.capture import AgentStep, Precondition, StepDetails, workload_not_out
from harness.contract.words import EndStatus

QUIET_SECONDS = 10
"""So long a read that is in flight when a Linux guest has ended is waited for."""


async def run_linux(session: Session) -> GuestEnd:
    """Boot the guest, swap it out where the workload wants that, follow it to its END line and collect the evidence.

    :raise PreconditionFailed, QemuDied, InfraFault:
    """
    capture, options = session.capture, session.options
    ours, theirs = socket.socketpair()

    def argv(qmp_fd: int) -> list[str]:
        files = GuestFiles(
            session.qemu, options.guest_kernel, options.guest_initrd, capture.path("guest/console.txt"),
            result=capture.path("guest/result.txt"), ram=session.ram_path, qmp_fd=qmp_fd, serial_fd=theirs.fileno(),
            accel=options.accel,
        )  # fmt: skip
        # -S: recording starts before the guest's first instruction.
        command = [*build_qemu_argv(session.plan, files), "-S"]
        capture.write_json("guest/qemu-argv.json", command)
        return command

    with ours, theirs:
        async with start_guest(
            argv, cgroup=session.group.qemu if session.group else "", qmp_log=capture.path("qmp.jsonl"),
            stderr_path=capture.path("guest/qemu.txt"), keep_fds=(theirs.fileno(),),
            release=session.release,
        ) as guest:  # fmt: skip
            theirs.close()
            reading = asyncio.ensure_future(_drain(ours))
            try:
                async with guest.needed():
                    end = await _run(session, guest, ours)
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError, OSError):  # ECONNRESET: QEMU died before it had read everything
                    await reading
    session.note_left()
    return end


async def _drain(serial: socket.socket) -> None:
    """Take what the guest prints off the socket (QEMU logs it to console.txt), or QEMU would block the guest."""
    serial.setblocking(False)
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(serial, 65536):
        pass


async def _run(session: Session, guest: Guest, serial: socket.socket) -> GuestEnd:
    capture, plan = session.capture, session.plan
    tids = await guest.vcpu_threads()
    session.note_guest(guest.pid, await guest.version(), tids)
    told = partial(watch_result, guest, capture.path("guest/result.txt"), capture.path("guest/console.txt"))
    if session.tracing:
        session.tracing.follow(tids, session.device_number)
    if plan.guest.workload != BOOT_WORKLOAD:
        await guest.cont()
        ready = await told("READY", READY_SECONDS * session.options.patience)
        if ready.status is not EndStatus.DONE:
            return ready
        capture.step(AgentStep.GUEST_READY)
        await guest.stop()
        await asyncio.to_thread(_swap_out, session, guest.pid)
    else:
        _write_precondition(session, _totals(session.group) if session.group else {})
    base = await guest.ram_base()
    await asyncio.to_thread(session.arm, tids, base, {})
    if session.tracing:
        session.tracing.start()
    session.counters("before", guest, tids, base)
    await guest.cont()
    capture.step(AgentStep.GO)
    start = time.monotonic()
    if plan.guest.workload != BOOT_WORKLOAD:
        await asyncio.get_running_loop().sock_sendall(serial, b"go\n")
    return await _follow(session, guest, tids, base, told, start)


def _swap_out(session: Session, pid: int) -> None:
    if session.group is None:
        raise PreconditionFailed("a Linux guest cannot be swapped out without a memory cgroup")
    session.capture.step(AgentStep.SWAP_OUT, StepDetails(anon=session.group.stat()["anon"]))
    with held_still(pid):
        swap_everything_out(session.group)
        totals = _totals(session.group)
    _write_precondition(session, totals)


def _totals(group: ScenarioCgroup) -> dict[str, int]:
    """What is left of the VM in memory, in bytes, and what is on the swap device and in the swap cache, in pages."""
    stat = group.stat()
    return {
        "anon_left": stat.get("anon", 0),
        "shmem_left": stat.get("shmem", 0),
        "swapped": group.swapped_pages(),
        "swap_cached": swap_cached_pages(group),
    }


def _write_precondition(session: Session, totals: dict[str, int]) -> None:
    """A Linux guest has no page-by-page plan: the workload's pages are on the swap device, or nothing is (``boot``)."""
    reason = workload_not_out(session.plan.guest.workload_pages, totals)
    session.write_record("precondition.json", Precondition(not reason, reason, totals, (), {}))
    session.capture.step(AgentStep.PRECONDITION, StepDetails(reached=not reason, totals=totals))
    if reason:
        raise PreconditionFailed(reason)


async def _quiet(tracing: Tracing) -> None:
    """Until no page is in flight any more, so that the trace has the end of each; what never ends shows as such."""
    deadline = time.monotonic() + QUIET_SECONDS
    while await asyncio.to_thread(tracing.outstanding) > 0 and time.monotonic() < deadline:
        await asyncio.sleep(0.1)


async def _follow(
    session: Session,
    guest: Guest,
    tids: tuple[int, ...],
    base: int,
    told: Callable[[str, float], Awaitable[GuestEnd]],
    start: float,
) -> GuestEnd:
    capture, plan, tracing = session.capture, session.plan, session.tracing
    actor = Actor(session.journal, capture, guest, tracing, session.device, plan.swap.delay_ms, session.ram_path)

    async def died() -> GuestEnd:
        await guest.wait_end()
        return GuestEnd(EndStatus.QEMU_DIED, guest.death())

    try:
        end = await first_of(
            told(f"END {plan.nonce:x}", plan.deadline_s * session.options.patience),
            perform_timed(actor, plan.timed, start),
            died(),
        )
        capture.step(AgentStep.GUEST_ENDED, StepDetails(status=end.status, reason=end.reason))
        await asyncio.sleep(plan.settle_ms / 1000)
        if tracing:
            await _quiet(tracing)
        return end
    finally:
        capture.step(AgentStep.COLLECT)
        if tracing:
            tracing.stop()
        session.counters("after", guest, tids, base)
        session.stop_tracing()
        session.collect_gate()
