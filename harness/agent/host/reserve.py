# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine for one run at a time: a lock that dies with us, a scope for all that the run starts, and an end.

The lock is a flock(2), which the kernel drops when its holder is gone, however it went.  What an earlier run left that
was killed is taken back before anything else: its processes are killed and its journals replayed.  Journals lie in
/run, a tmpfs: what they speak of does not outlive the machine's power either.

The run is taken to live while it writes to our input.  When the input ends, or nothing came for ``silence_s``, the
agents in the scope get SIGTERM, to which they undo everything, then SIGKILL, and then we undo what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.agent import by_sudo
from harness.agent.host.kernel_files import available_mib, find_mount, read_text
from harness.agent.host.loaded_modules import LOADED_BY_US, loaded
from harness.agent.host.loop import open_loop_disk
from harness.agent.host.machine_state import changes, machine_state
from harness.agent.host.others_use import grown, others_use
from harness.agent.host.resident import clean_up
from harness.agent.host.undo import Journal, let_go, undo
from harness.contract.reserve_messages import Answered, Ask, KernelMessage, Released, Reserved, Waiting
from harness.contract.service import line_of
from harness.contract.structure import from_json
from harness.errors import UsageError

STATE = by_sudo.RUNS
_FIRST, _LAST = "scope", "machine"
"""Folders of journals in a run's.  The scope goes before anything else: an agent that lives on would go on changing
things.  The disk and modules go when nobody uses them any more."""
_TERM_S = 60.0
"""How long agents may take to undo everything: as long as one change may resist, twice."""
_OF_FREE = 50  # per cent of what is free on the disk, for a swap file
_LEAST_MIB = 64
_CHUNK = 1 << 16
_TELL_S = 1.0
_RECORD = 8192  # kernel/printk/printk_ringbuffer.h: a record of /dev/kmsg is at most PRINTK_MESSAGE_MAX, 2048


@dataclass(frozen=True, slots=True)
class ReserveOptions:
    """``wait_s``: how long to wait for another run to end, 0: refuse at once.  ``silence_s``: without a line of input
    for so long, the run is taken to be dead.  ``limit_s``: the longest reservation.  ``scratch``: where a swap file
    would be, and ``disk_mib``: how large at most, 0: none is made.  ``who``: for others that wait.
    ``compare``: whatever of this machine is not as before is a problem, not only what cannot be taken back.
    """

    run: str
    wait_s: float = 0.0
    silence_s: float = 60.0
    limit_s: float = 86400.0
    scratch: str = "/var/tmp"
    who: str = ""
    disk_mib: int = 0
    compare: bool = False
    state: str = STATE


def reserve(options: ReserveOptions, source: int = 0) -> int:
    """Hold this machine until ``source`` ends; exit code 0: all is as before, 3: not, or another run has it.

    :raise UsageError: the run's name cannot be that of a folder.
    """
    if not options.run.replace("-", "").isalnum():
        raise UsageError(f"{options.run!r} cannot be the name of a run")
    if by_sudo.caller() is not None and (options.state, options.scratch) != (STATE, ReserveOptions("").scratch):
        raise UsageError("--state and --scratch are not for those who come by sudo")
    os.makedirs(options.state, mode=0o755, exist_ok=True)
    with _Stop(source) as stop, _locked(options, stop) as mine:
        if not mine:
            return 3
        return _Reservation(options, stop).hold()


@dataclass(slots=True)
class _Stop:
    """Where the reasons to end come from: our input, and SIGTERM and the like by a pipe."""

    source: int
    pending: bytearray = field(default_factory=bytearray)
    why: str = ""
    _told: tuple[int, int] = (-1, -1)

    def __enter__(self) -> _Stop:
        self._told = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._tell)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        return self

    def __exit__(self, *exc: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _tell(self, number: int, _frame: object) -> None:
        self.why = self.why or f"terminated by {signal.Signals(number).name}"
        os.write(self._told[1], b"t")

    def lines(self, seconds: float, more: list[int]) -> list[bytes] | None:
        """What came on the input within ``seconds``, sooner when ``more`` can be read; None at its end."""
        ready, _, _ = select.select([self.source, self._told[0], *more], [], [], max(0.0, seconds))
        if self.why:
            return None
        if self.source not in ready:
            return []
        chunk = os.read(self.source, _CHUNK)
        if not chunk:
            self.why = "the run has ended"
            return None
        self.pending += chunk
        *whole, rest = bytes(self.pending).split(b"\n")
        self.pending[:] = rest[-_CHUNK:]
        return whole


@contextlib.contextmanager
def _locked(options: ReserveOptions, stop: _Stop) -> Iterator[bool]:
    """The lock of this machine; False when it could not be had."""
    lock = os.open(f"{options.state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield _take(lock, options, stop)
    finally:
        os.close(lock)


def _take(lock: int, options: ReserveOptions, stop: _Stop) -> bool:
    end = time.monotonic() + options.wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 400, 0).decode(errors="replace").strip() or "a run that says nothing of itself"
            over = time.monotonic() >= end
            _say(Waiting(holder, over))
            if over or stop.lines(min(_TELL_S, end - time.monotonic()), []) is None:
                return False
        else:
            os.ftruncate(lock, 0)
            since = time.strftime("%H:%M:%S")
            os.pwrite(lock, f"run {options.run}{options.who and f' of {options.who}'} since {since}".encode(), 0)
            return True


class _Reservation:
    """The machine is ours."""

    def __init__(self, options: ReserveOptions, stop: _Stop) -> None:
        self._options = options
        self._stop = stop
        self._folder = f"{options.state}/{options.run}"

    def hold(self) -> int:
        left = take_back_runs(self._options.state)
        before, others = machine_state(), others_use()
        for name in (_FIRST, _LAST):
            os.makedirs(f"{self._folder}/{name}", mode=0o700)
        uid = by_sudo.caller()
        if uid is not None:
            by_sudo.make_inbox(self._folder, uid)
        scope = self._scope(Journal(f"{self._folder}/{_FIRST}/journal.jsonl"))
        last = Journal(f"{self._folder}/{_LAST}/journal.jsonl")
        for module in set(LOADED_BY_US) - loaded():
            last.change("module", name=module)
        disk, no_disk = self._disk(last)
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(log, 0, os.SEEK_END)
        try:
            _say(self._reserved(scope, disk, no_disk, left))
            self._serve(log)
            problems = [*left, *_end_scope(scope), *take_back_runs(self._options.state)]
            if self._options.compare:
                problems += [*changes(before, machine_state()), *grown(others, others_use())]
            for line in _records(log):
                _say(KernelMessage(line))
        finally:
            os.close(log)
        _say(Released(self._stop.why, tuple(problems)))
        return 3 if problems else 0

    def _scope(self, journal: Journal) -> str:
        root = find_mount("cgroup2")
        if not root:
            return ""
        path = f"{root}/apf-run-{self._options.run}"
        journal.change("cgroup", path=path)
        os.mkdir(path)
        return path

    def _disk(self, journal: Journal) -> tuple[str, str]:
        """A disk for swap as large as may be, and why there is none."""
        if not self._options.disk_mib:
            return "", ""

        def note(device: str, inode: int) -> None:
            journal.change("loop", device=device, inode=inode)

        mib = min(self._options.disk_mib, self._free_mib() * _OF_FREE // 100)
        if mib < _LEAST_MIB:
            return "", f"{self._options.scratch} has {self._free_mib()} MiB free, too little for a swap file"
        try:
            return open_loop_disk(note, self._options.scratch, mib), ""
        except OSError as exc:
            return "", f"no loop device over a file of {mib} MiB in {self._options.scratch}: {exc.strerror}"

    def _free_mib(self) -> int:
        free = os.statvfs(self._options.scratch)
        return free.f_bavail * free.f_frsize >> 20

    def _reserved(self, scope: str, disk: str, no_disk: str, left: list[str]) -> Reserved:
        name = os.uname()
        return Reserved(
            reserved=os.getpid(), folder=self._folder, scope=scope, release=name.release, version=name.version,
            boot=read_text("/proc/sys/kernel/random/boot_id").strip(),
            memory_mib=available_mib(), disk=disk, no_disk=no_disk,
            inbox=f"{self._folder}/{by_sudo.INBOX}" if by_sudo.caller() is not None else "",
            replayed=tuple(left),
        )  # fmt: skip

    def _serve(self, log: int) -> None:
        """Until there is a reason to end."""
        began = heard = time.monotonic()
        while True:
            now = time.monotonic()
            quiet = heard + self._options.silence_s - now
            left = began + self._options.limit_s - now
            lines = self._stop.lines(min(quiet, left), [log])
            for line in _records(log):
                _say(KernelMessage(line))
            if lines is None:
                return
            if lines:
                heard = time.monotonic()
            for question in filter(None, lines):
                try:
                    _say(Answered(from_json(Ask, question).ask))
                except UsageError:
                    continue
            if time.monotonic() - heard >= self._options.silence_s:
                self._stop.why = f"the run said nothing for {self._options.silence_s:.0f} s"
                return
            if left <= 0:
                self._stop.why = f"the run has had this machine for {self._options.limit_s:.0f} s, as long as it may"
                return


def take_back_runs(state: str = STATE) -> list[str]:
    """Take back what runs have left, each with all that it started; what could not be, in words.

    Only for who has the lock.  A run's folder goes when nothing of it is left.
    """
    problems: list[str] = []
    resist: set[str] = set()
    for folder in sorted(glob.glob(f"{glob.escape(state)}/*/")):
        if not os.path.isdir(f"{folder}{_FIRST}"):
            continue  # nothing of ours
        first, last = (f"{folder}{name}/journal.jsonl" for name in (_FIRST, _LAST))
        others = [path for path in glob.glob(f"{glob.escape(folder)}*/journal.jsonl") if path not in (first, last)]
        journals = [first, *sorted(others), last]
        for path in journals:
            let_go(path)
        left = {path: undo(path) for path in journals}
        problems += [problem for found in left.values() for problem in found]
        resist |= {path for path, found in left.items() if found}
        if not any(left.values()):
            shutil.rmtree(folder, ignore_errors=True)
    return [*problems, *clean_up(resist)]


def _end_scope(scope: str) -> list[str]:
    """SIGTERM for everybody in the scope and time to undo; who still lives is told, and killed by what follows."""
    end = time.monotonic() + _TERM_S
    told: set[int] = set()
    while pids := _members(scope):
        for pid in set(pids) - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            told.add(pid)
        if time.monotonic() > end:
            return [f"{len(pids)} processes of the run did not end in {_TERM_S:.0f} s after SIGTERM and were killed"]
        time.sleep(0.05)
    return []


def _members(scope: str) -> list[int]:
    try:
        return [int(word) for word in read_text(f"{scope}/cgroup.procs").split()] if scope else []
    except FileNotFoundError:
        return []


def _records(log: int) -> Iterator[str]:
    """What the kernel has said since the last time; after EPIPE the oldest record that is left comes next."""
    while True:
        try:
            yield os.read(log, _RECORD).split(b"\n", 1)[0].decode(errors="replace")
        except BrokenPipeError:
            continue
        except BlockingIOError:
            return


def _say(message: Waiting | Reserved | KernelMessage | Answered | Released) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line_of(message) + "\n")
        sys.stdout.flush()
