# SPDX-License-Identifier: GPL-2.0-or-later
"""Several hosts at once, each with a worker process of its own.

Processes and not threads: QEMU dies with the thread that started it, SIGTERM must reach whatever a worker waits for,
and judging takes processor time.  A worker dies with us (PR_SET_PDEATHSIG), and its QEMU and its compiler with it.

While one kernel is being built the others' scenarios run; a kernel with much left to do gets a second host when
there is a processor for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, assert_never

from harness.errors import UsageError
from harness.hosts.deadline import Deadline
from harness.judge.verdict_types import Stage
from harness.results import Row
from harness.run.ending import OURS, Ending
from harness.run.error_status import Failure, failure_of
from harness.run.held_signals import let_signals_come, signals_held
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.run.worker import start_worker
from harness.status import Status

_WORTH_A_HOST = 3
"""Jobs in waiting per further host of a kernel: fewer are done before it has booted."""

_HOST_MIB = 2560  # a virtual host's memory and what QEMU needs besides
_TIDY_S = 60.0
_AGAIN_S = 5.0
_FORK = multiprocessing.get_context("fork")


def room() -> int:
    """How many hosts this machine has processors and memory for, at least one."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    memory = int(found[1]) // 1024 // _HOST_MIB if found else 1
    return max(1, min(len(os.sched_getaffinity(0)), memory))


def hosts_wanted(jobs: Sequence[Job], request: Request) -> int:
    """How many hosts at once are worth their while; 1: no pool is needed."""
    if not request.place.boots:
        return 1
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.key.kernel] = counts.get(job.key.kernel, 0) + 1
    return min(request.hosts or room(), sum(-(-n // (_WORTH_A_HOST + 1)) for n in counts.values()))


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """A worker tells what it does; ``done``: 0.0 to 1.0 where it is known."""

    scope: str
    what: str
    done: float | None


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """A line for people."""

    text: str


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The kernel's setup is there."""

    facts: dict[str, str]


@dataclass(frozen=True, slots=True)
class WantsJob:
    """The worker asks for its next job; it gets a Job, or None when there is none left."""


@dataclass(frozen=True, slots=True)
class JobDone:
    """A verdict."""

    row: Row


@dataclass(frozen=True, slots=True)
class BadRequest:
    """The request cannot be carried out as written: the whole run ends with this."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class SetupFailed:
    """No job of this kernel can be performed."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class WorkerEnds:
    """The last message of a worker that ends in order."""


Message = WorkerProgress | WorkerLine | WorkerReady | WantsJob | JobDone | BadRequest | SetupFailed | WorkerEnds


@dataclass(slots=True)
class KernelQueue:
    """One kernel: what is to be done on it.  ``ready``: its setup is there."""

    kernel: str
    jobs: tuple[Job, ...]
    waiting: deque[Job]
    ready: bool = False


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One worker process.  ``doing``: the job that it has; ``ended``: it has sent its last message."""

    queue: KernelQueue
    process: BaseProcess
    pipe: Connection[Any, Any]
    doing: Job | None = None
    ended: bool = field(default=False)


class WorkerPool:
    """Performs jobs on at most ``hosts`` hosts at once; rows() hands out verdicts as they come."""

    def __init__(
        self, jobs: Sequence[Job], request: Request, folder: RunFolder, observer: Observer, hosts: int
    ) -> None:
        self._request = request
        self._folder = folder
        self._observer = observer
        self._hosts = hosts
        kernels = dict.fromkeys(job.key.kernel for job in jobs)
        own = {kernel: tuple(job for job in jobs if job.key.kernel == kernel) for kernel in kernels}
        self._queues = [KernelQueue(kernel, mine, deque(mine)) for kernel, mine in own.items()]
        self._members: list[WorkerProcess] = []
        self.facts: dict[str, str] = {}

    def rows(self) -> Generator[Row, None, None]:
        """Every verdict; when this is left early, the workers are ended in order.

        :raise UsageError: a worker met one.
        """
        try:
            while self._start():
                for ready in wait([m.pipe for m in self._members] + [m.process.sentinel for m in self._members]):
                    member = next((m for m in self._members if ready in (m.pipe, m.process.sentinel)), None)
                    if member is not None:
                        yield from self._receive(member)
        finally:
            self._stop()

    def drain(self) -> Iterator[Row]:
        """Verdicts that were on their way when the workers were stopped."""
        for member in self._members:
            with contextlib.suppress(EOFError, OSError):
                while member.pipe.poll():
                    with OURS.held():
                        message = member.pipe.recv()
                    if isinstance(message, JobDone):
                        yield message.row
            member.pipe.close()
        self._members.clear()

    def _start(self) -> bool:
        """Start what workers there are jobs and room for; False when nothing is left to do."""
        while len(self._members) < self._hosts:
            queue = self._most_needed()
            if queue is None:
                break
            ours, theirs = _FORK.Pipe()
            process = _FORK.Process(
                target=_work, args=(theirs, os.getpid(), queue.kernel, queue.jobs, self._request, self._folder)
            )
            with signals_held():
                process.start()
                self._members.append(WorkerProcess(queue, process, ours))
            theirs.close()
        return bool(self._members)

    def _most_needed(self) -> KernelQueue | None:
        """A queue that nobody works on; else the one with most to do for each host, if that is much."""
        at_work = {queue.kernel: sum(m.queue is queue for m in self._members) for queue in self._queues}
        open_ = [queue for queue in self._queues if queue.waiting]
        for queue in open_:
            if not at_work[queue.kernel]:
                return queue
        most = max((queue for queue in open_ if queue.ready), key=lambda q: len(q.waiting), default=None)
        return most if most is not None and len(most.waiting) >= _WORTH_A_HOST * at_work[most.kernel] else None

    def _receive(self, member: WorkerProcess) -> Iterator[Row]:
        over = False
        while not over and member.pipe.poll():
            try:
                with OURS.held():  # a message that was read in part would be lost, and those behind it
                    message: Message = member.pipe.recv()
            except (EOFError, OSError):
                over = True
            else:
                yield from self._handle(member, message)
        if over or (not member.process.is_alive() and not member.pipe.poll()):
            member.process.join()
            self._members.remove(member)
            member.pipe.close()
            if not member.ended:
                yield from self._lost(member)

    def _handle(self, member: WorkerProcess, message: Message) -> Iterator[Row]:
        match message:
            case WorkerProgress(scope, what, done):
                self._observer.scope(scope)
                self._observer.progress(what, done)
            case WorkerLine(text):
                self._observer.line(text)
            case WorkerReady(facts):
                member.queue.ready = True
                self.facts.update(facts)
            case WantsJob():
                member.doing = member.queue.waiting.popleft() if member.queue.waiting else None
                with contextlib.suppress(OSError):  # it died meanwhile, which is found out next
                    member.pipe.send(member.doing)
            case JobDone(row):
                member.doing = None
                yield row
            case BadRequest(text, hint):
                raise UsageError(text, hint=hint)
            case SetupFailed(failure):
                if not member.queue.waiting:  # all is done, and its host could not be ended in order
                    self._observer.line(f"a worker of {member.queue.kernel} ended with an error: {failure.reason}")
                yield from self._give_up(member.queue, failure)
            case WorkerEnds():
                member.ended = True
            case _:
                assert_never(message)

    def _give_up(self, queue: KernelQueue, failure: Failure) -> Iterator[Row]:
        """Everything that waits for this kernel gets this verdict."""
        while queue.waiting:
            job = queue.waiting.popleft()
            yield job.row(failure.verdict(job.scenario.id))

    def _lost(self, member: WorkerProcess) -> Iterator[Row]:
        """The worker exited without its last message.

        Its current job gets ERROR; if it had none and no other worker serves this kernel, all queued jobs do.
        """
        code = member.process.exitcode or 0
        reason = f"the worker process was killed by {signal.Signals(-code).name}" if code < 0 else (
            f"the worker process ended with code {code}")  # fmt: skip
        if member.doing is not None:
            lost = Failure(Status.ERROR, Stage.PERFORM, reason)
            yield member.doing.row(lost.verdict(member.doing.scenario.id))
        elif not any(m.queue is member.queue for m in self._members):
            yield from self._give_up(member.queue, Failure(Status.ERROR, Stage.SETUP, reason))

    def _stop(self) -> None:
        """SIGTERM, time for a tidy end, then SIGKILL.

        SIGTERM again and again: Python swallows the exception of a handler that strikes inside a destructor.
        """
        deadline = Deadline.after(_TIDY_S, "workers")
        while alive := [m.process for m in self._members if m.process.is_alive()]:
            for process in alive:
                if deadline.expired:
                    process.kill()
                else:
                    process.terminate()
            again = Deadline.after(_AGAIN_S, "another signal")
            while any(process.is_alive() for process in alive) and not again.expired:
                alive[0].join(0.1)
                alive.append(alive.pop(0))


class PipeObserver:
    """An observer at the other end of a pipe."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe
        self._scope = ""

    def scope(self, prefix: str) -> None:
        self._scope = prefix

    def progress(self, what: str, done: float | None = None) -> None:
        self._pipe.send(WorkerProgress(self._scope, what, done))

    def line(self, text: str = "") -> None:
        self._pipe.send(WorkerLine(text))

    def verdict(self, row: Row) -> None:
        self._pipe.send(JobDone(row))


def _work(
    pipe: Connection[Any, Any], parent: int, kernel: str, jobs: Sequence[Job], request: Request, folder: RunFolder
) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGTERM, Ending().handle)
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach the whole group; our parent ends us in order
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return
    observer = PipeObserver(pipe)
    try:
        let_signals_come()
        try:
            with start_worker(kernel, jobs, request, folder, observer) as worker:
                pipe.send(WorkerReady(worker.facts))
                while True:
                    pipe.send(WantsJob())
                    job = pipe.recv()
                    if job is None:
                        break
                    observer.verdict(worker.perform(job))
        except UsageError as exc:
            pipe.send(BadRequest(exc.message, exc.hint))
        except Exception as exc:  # noqa: BLE001 - whatever it was, every job must get a verdict
            pipe.send(SetupFailed(failure_of(exc, Stage.SETUP)))
        pipe.send(WorkerEnds())
    except KeyboardInterrupt:
        pass
