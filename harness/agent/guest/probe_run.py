# SPDX-License-Identifier: GPL-2.0-or-later
"""Perform a plan with the probe guest, from QEMU's start to the counters after its end."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from harness.agent.guest.actions import Actor, perform_timed
from harness.agent.guest.cmdline import GuestFiles, build_qemu_argv
from harness.agent.guest.guest_wait import (
    POLL_SECONDS,
    READY_SECONDS,
    GuestEnd,
    first_of,
    log_fills,
    reads_wait_for_words,
    trace_fills,
    wait_ready,
    watch_probe,
)
from harness.agent.guest.qemu import Guest, start_guest
from harness.agent.guest.snapshot_disk import snapshot_disk
from harness.agent.host import syscalls
from harness.agent.pages import remote_madvise
from harness.agent.pages.final_state import inspect_after
from harness.agent.pages.guest_memory import GuestMemory, ProcessMemory
from harness.agent.pages.pageout import PreconditionFailed, Target, prepare_pages
from harness.agent.pages.prove import inspect, sectors, with_places
from harness.agent.pages.taken_again import can_be_taken, taken_again
from harness.agent.session import Session
from harness.contract.capture import AgentStep, Precondition, StepDetails
from harness.contract.plan import says
from harness.contract.program import encode_items
from harness.contract.words import EndStatus, HostWord

_LOOK_SECONDS = 5.0
"""For one look at QEMU's memory, on a busy machine."""


async def run_probe(session: Session) -> GuestEnd:
    """Start the guest, prepare its pages, let it go, follow it to its end and collect the evidence.

    :raise PreconditionFailed, QemuDied, InfraFault:
    """
    capture, plan = session.capture, session.plan
    items = capture.path("guest/items.bin")
    capture.write_bytes("guest/items.bin", encode_items(plan))
    with snapshot_disk(wanted=says(plan, HostWord.SAVEVM)) as disk:

        def argv(qmp_fd: int) -> list[str]:
            files = GuestFiles(
                session.qemu, session.options.probe, items, capture.path("guest/console.txt"),
                ram=session.ram_path, qmp_fd=qmp_fd, accel=session.options.accel, snapshot_fd=disk,
            )  # fmt: skip
            command = build_qemu_argv(plan, files)
            capture.write_json("guest/qemu-argv.json", command)
            return command

        end = await _started(session, argv, disk)
    session.note_left()
    return end


async def _started(session: Session, argv: Callable[[int], list[str]], disk: int) -> GuestEnd:
    """QEMU from its start to its end."""
    capture = session.capture
    capture.step(AgentStep.START_GUEST)
    cgroup = session.group.qemu if session.group else ""
    async with start_guest(
        argv, cgroup=cgroup, qmp_log=capture.path("qmp.jsonl"), stderr_path=capture.path("guest/qemu.txt"),
        keep_fds=(disk,) if disk >= 0 else (), release=session.release,
    ) as guest:  # fmt: skip
        with ExitStack() as stack:
            async with guest.needed():
                return await _run(session, guest, stack)


async def _run(session: Session, guest: Guest, stack: ExitStack) -> GuestEnd:
    capture, plan = session.capture, session.plan
    base, tids = await guest.ram_base(), await guest.vcpu_threads()
    memory = GuestMemory(stack.enter_context(ProcessMemory(guest.pid)), base, plan.guest.vcpus)
    session.note_guest(guest.pid, await guest.version(), tids)
    seconds = min(READY_SECONDS, max(60.0, 4 * plan.deadline_s)) * session.options.patience
    not_ready = await wait_ready(guest, memory, plan.nonce, seconds)
    if not_ready:
        with suppress(OSError):
            capture.write_bytes("guest/log.bin", memory.log())
        return not_ready
    capture.step(AgentStep.GUEST_READY, StepDetails(tsc_khz=memory.control().tsc_khz))
    await guest.stop()
    target = Target(plan, guest.pid, memory, session.group, session.ram, _ram_fd(session, guest, stack))
    await asyncio.to_thread(_advise, session, target)
    proof = await asyncio.to_thread(_prepare, session, target)
    await asyncio.to_thread(_arm, session, guest.pid, tids, base, proof)
    await guest.cont()
    session.counters("before", guest, tids, base)
    return await _go(session, guest, memory, tids)


def _ram_fd(session: Session, guest: Guest, stack: ExitStack) -> int:
    fd = session.ram.open(guest.pid, session.ram_path)
    if fd >= 0:
        stack.callback(os.close, fd)
    return fd


def _advise(session: Session, target: Target) -> None:
    """Advice on the RAM mapping: what its kind wants, then the plan's."""
    size, memory = session.plan.guest.memory_mib << 20, session.plan.memory
    advices = (syscalls.MADV_RANDOM, memory.random_advice), (syscalls.MADV_SEQUENTIAL, memory.sequential_advice)
    for advice in (*session.ram.advice, *(advice for advice, wanted in advices if wanted)):
        remote_madvise.madvise_apart(target.pid, target.memory.base, size, advice)


def _prepare(session: Session, target: Target) -> Precondition:
    """Pages into their states, and the proof of it. :raise PreconditionFailed:"""
    session.capture.step(AgentStep.PREPARE_PAGES, StepDetails(pages=len(target.plan.pages)))
    try:
        prepare_pages(target)
    except BaseException:
        with suppress(OSError):  # it shows how far preparation came
            _prove(session, target)
        raise
    proof = _prove(session, target)
    session.capture.step(AgentStep.PRECONDITION, StepDetails(reached=proof.reached, totals=proof.totals))
    if not proof.reached:
        raise PreconditionFailed(proof.reason)
    return proof


def _prove(session: Session, target: Target) -> Precondition:
    """What is, written down. :raise OSError: the host does not say it, or nothing can be written."""
    proof = inspect(target)
    if session.device is not None and session.device.gate is not None:
        proof = with_places(proof, session.plan, session.device.gate.find)
    session.write_record("precondition.json", proof)
    return proof


def _arm(session: Session, guest_pid: int, tids: tuple[int, ...], ram_hva: int, proof: Precondition) -> None:
    """The plan's read-ahead and source of pages; filters of the trace."""
    session.open_faults(guest_pid, ram_hva)
    session.arm(tids, ram_hva, sectors(proof))
    if session.tracing:
        session.tracing.follow(tids, session.device_number)


async def _go(session: Session, guest: Guest, memory: GuestMemory, tids: tuple[int, ...]) -> GuestEnd:
    """Let the guest go, follow it, settle, collect."""
    capture, plan, tracing = session.capture, session.plan, session.tracing
    actor = Actor(
        session.journal, capture, guest, tracing, session.device, plan.swap.delay_ms, session.ram_path,
        session.new_thread,
    )  # fmt: skip
    if session.device is not None and session.device.gate is not None:
        gate = session.device.gate
        guest.on_reset(lambda at: gate.ask("reset", at=at))
    if tracing:
        tracing.start()
    await asyncio.to_thread(session.set_parameters)
    capture.step(AgentStep.GO)
    start = time.monotonic()
    before_all_others = ExitStack()
    is_over = False
    try:
        if plan.guest.realtime:
            before_all_others.enter_context(realtime(tids))
            actor.beside_others = partial(beside_others, tids)
        memory.go()
        end = await first_of(
            watch_probe(guest, memory, plan, actor, start),
            perform_timed(actor, plan.timed, start),
            *([trace_fills(tracing, start)] if tracing else []),
            log_fills(guest, memory, tracing, start, apart=reads_wait_for_words(plan)),
            _died(guest),
        )
        capture.step(AgentStep.GUEST_ENDED, StepDetails(status=end.status, reason=end.reason))
        if end.status is EndStatus.DONE:  # else it may go on for ever, and its trace grow faster than it is read
            await _settle(session, tids)
            is_over = True
        return end
    finally:
        # Also when an action of ours failed: the evidence says what had happened by then.
        before_all_others.close()
        _collect(session, guest, memory, tids, is_over)


@contextmanager
def realtime(tids: Sequence[int]) -> Iterator[None]:
    """The vCPU threads before all others, while the guest's program runs and no longer: a guest that spins leaves their
    processors to nobody, and what the host does on each processor (schedule_on_each_cpu) never ends meanwhile."""
    _schedule(tids, os.SCHED_FIFO, 1)
    try:
        yield
    finally:
        _schedule(tids, os.SCHED_OTHER, 0)


@contextmanager
def beside_others(tids: Sequence[int]) -> Iterator[None]:
    """... and not while the agent does what needs a worker of each processor."""
    _schedule(tids, os.SCHED_OTHER, 0)
    try:
        yield
    finally:
        _schedule(tids, os.SCHED_FIFO, 1)


def _schedule(tids: Sequence[int], policy: int, priority: int) -> None:
    for tid in tids:
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setscheduler(tid, policy, os.sched_param(priority))


async def _settle(session: Session, tids: tuple[int, ...]) -> None:
    """Wait until nothing that the guest began is under way any more, at most the plan's time."""
    end = time.monotonic() + session.plan.settle_ms / 1000
    while time.monotonic() < end and not await asyncio.to_thread(session.is_over, tids):
        await asyncio.sleep(POLL_SECONDS)


def _collect(session: Session, guest: Guest, memory: GuestMemory, tids: tuple[int, ...], is_over: bool) -> None:
    session.capture.step(AgentStep.COLLECT)
    if session.tracing:
        session.tracing.stop()
    if not is_over:
        _make_readable(session, memory)
    session.counters("after", guest, tids, memory.base)
    final = None
    if guest.alive:
        with suppress(OSError):
            session.capture.write_bytes("guest/log.bin", memory.log())
            final = inspect_after(session.plan, guest.pid, memory, session.group, session.collect_gate)
            session.write_record("after.json", final)
    session.stop_tracing()
    session.collect_gate()
    written = can_be_taken(session.plan)
    if final is not None and is_over and written:
        with suppress(OSError):
            session.write_record("after.json", taken_again(guest.pid, memory, final, written, session.group))


def _make_readable(session: Session, memory: GuestMemory) -> None:
    """Let everything pass if QEMU's memory cannot be looked at before (guest_wait.reads_wait_for_words)."""

    def look() -> None:
        with suppress(OSError):
            memory.control()

    reader = threading.Thread(target=look, daemon=True, name="look")
    reader.start()
    reader.join(_LOOK_SECONDS)
    if reader.is_alive():
        session.collect_gate()
        session.release()
        reader.join()


async def _died(guest: Guest) -> GuestEnd:
    await guest.wait_end()
    return GuestEnd(EndStatus.QEMU_DIED, guest.death())
