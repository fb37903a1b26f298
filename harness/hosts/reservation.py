# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that others use, too, reserved for one run, and its kernel log as long as the run has it.

A process on the machine holds it (``agent.pyz reserve``, see docs/formats/reservation.md).  It is asked something all
the time: that tells it that we live, and tells us that it does.  Two threads of ours serve it, so that the machine is
not lost to us while a long verdict is found.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.contract.reserve_messages import Answered, Ask, KernelMessage, Released, Reserved, Waiting
from harness.contract.service import line_of
from harness.contract.structure import structure
from harness.errors import ApfError, HostLost, InfraFault, UsageError
from harness.hosts.deadline import Deadline
from harness.hosts.kernel_log import KmsgRecord, next_sequence, parse_kmsg, text_since
from harness.hosts.stream import Lines, Stream
from harness.progress import Progress

_BEAT_S = 5.0
_SILENCE_S = 60.0
"""Without a word from the other side for so long, each takes the other to be gone."""
_ANSWER_S = 45.0  # a machine under swap pressure answers late
_START_S = 120.0
_END_S = 240.0  # agents have 60 s to undo, then each change may resist for 30 s
_RECORDS = 100_000  # kernel messages that are kept


@dataclass(frozen=True, slots=True)
class ReserveWish:
    """``name``: of the run, for the folder; ``who``: for others that wait; times in seconds; ``disk_mib``,
    ``state`` and ``compare``: see ReserveOptions of the agent."""

    name: str
    who: str
    wait_s: float = 0.0
    limit_s: float = 86400.0
    scratch: str = "/var/tmp"
    disk_mib: int = 0
    state: str = "/run/apf-runs"
    compare: bool = True

    def command(self, agent: tuple[str, ...]) -> list[str]:
        """The command on the machine, where ``agent`` runs the agent."""
        return [
            *agent, "reserve", "--name", self.name, "--who", self.who, "--wait", str(self.wait_s),
            "--silence", str(_SILENCE_S), "--limit", str(self.limit_s), "--scratch", self.scratch,
            "--disk-mib", str(self.disk_mib), "--state", self.state,
            *(["--compare"] if self.compare else []),
        ]  # fmt: skip


class HostBusy(InfraFault):
    """Another run has the machine."""


class Reservation:
    """Made by reserve().  ``machine``: what it told of itself."""

    def __init__(self, stream: Stream, lines: Lines, machine: Reserved) -> None:
        self.machine = machine
        self._stream = stream
        self._lines = lines
        self._news = threading.Condition()
        self._sending = threading.Lock()
        self._records: deque[KmsgRecord] = deque(maxlen=_RECORDS)
        self._asked = self._answered = 0
        self._heard = time.monotonic()
        self._ended = ""
        self._released: Released | None = None
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True, name=f"reservation-{work.__name__.strip('_')}")
            for work in (self._listen, self._beat)
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """:raise HostLost: the machine is ours no longer, or does not answer."""
        with self._news:
            if self._ended:
                raise HostLost(f"the reservation of the host has ended: {self._ended}")
            silent = time.monotonic() - self._heard
        if silent > _SILENCE_S and not self._closing.is_set():
            raise HostLost(f"the host did not answer for {silent:.0f} s")

    def mark(self) -> int:
        """A cursor behind all kernel messages that there are now.

        :raise HostLost: see check().
        """
        self._ask_and_wait()
        with self._news:
            return next_sequence(tuple(self._records))

    def log(self, cursor: int = 0) -> bytes:
        """Kernel messages from the cursor on, as far as they can be had; 0: all since the reservation."""
        with contextlib.suppress(HostLost):
            self._ask_and_wait()
        with self._news:
            return text_since(tuple(self._records), cursor)

    def end(self) -> Released:
        """Give the machine back; what was put back there is told.

        :raise HostLost: the machine does not tell it.
        """
        self._closing.set()
        self._stream.end_input()
        self._threads[0].join(_END_S)
        self._stream.close()
        with self._news:
            if self._released is None:
                raise HostLost(
                    f"the host did not say that it is as before: {self._ended or f'no answer in {_END_S:.0f} s'}",
                    hint="the next run there takes back what this one has left",
                )
            return self._released

    def _ask(self) -> int:
        with self._sending:
            number = self._asked = self._asked + 1
            self._stream.send(line_of(Ask(number)).encode() + b"\n", Deadline.after(_ANSWER_S, "asking the host"))
            return number

    def _ask_and_wait(self) -> None:
        self.check()
        number = self._ask()
        with self._news:
            self._news.wait_for(lambda: self._ended or self._answered >= number, _ANSWER_S)
            if self._answered < number and not self._ended:
                raise HostLost(f"the host did not answer in {_ANSWER_S:.0f} s")
        self.check()

    def _beat(self) -> None:
        while not self._closing.wait(_BEAT_S):
            try:
                self._ask()
            except ApfError:
                return  # the listener hears why

    def _listen(self) -> None:
        why = "its output ended"
        try:
            while (line := self._lines.next(Deadline.after(7 * 86400, "the reservation"))) is not None:
                self._hear(line)
        except ApfError as exc:
            why = exc.message
        said = self._stream.errors().decode(errors="replace").strip()[-500:]
        with self._news:
            self._ended = self._released.why if self._released is not None else f"{why} {said}".strip()
            self._news.notify_all()

    def _hear(self, line: str) -> None:
        message = _message(line)
        with self._news:
            self._heard = time.monotonic()
            match message:
                case KernelMessage(text):
                    self._records.extend(parse_kmsg(text.encode()))
                case Answered(number):
                    self._answered = number
                case Released():
                    self._released = message
                case _:
                    pass
            self._news.notify_all()


def _message(line: str) -> Waiting | Reserved | KernelMessage | Answered | Released | None:
    """None for a line that is none of these: it is passed over."""
    try:
        told = json.loads(line)
        if not isinstance(told, dict):
            return None
        kinds: dict[str, type[Waiting | Reserved | KernelMessage | Answered | Released]] = {
            "waiting": Waiting, "reserved": Reserved, "kmsg": KernelMessage, "answered": Answered, "released": Released,
        }  # fmt: skip
        kind = next((kinds[key] for key in kinds if key in told), None)
        return structure(kind, told) if kind is not None else None
    except (ValueError, UsageError, RecursionError):
        return None


@contextlib.contextmanager
def reserve(
    open_stream: Callable[[list[str]], Stream], agent: tuple[str, ...], wish: ReserveWish, name: str, progress: Progress
) -> Iterator[Reservation]:
    """Have a machine until the context ends.

    :param open_stream: starts a command on it, as root.
    :param agent: the command of an agent that is there; empty: ``open_stream`` brings it.
    :param name: of the machine, for messages.
    :raise HostBusy: another run has it, and has not ended in ``wish.wait_s``.
    :raise InfraFault: at the start: it cannot be had; at the end: something there could not be put back.
    """
    stream = open_stream(wish.command(agent))
    try:
        lines = Lines(stream)
        machine = _await(lines, stream, wish, name, progress)
        if machine.replayed:
            raise InfraFault(f"{name} is not as it was before an earlier run: {'; '.join(machine.replayed)}")
        reservation = Reservation(stream, lines, machine)
    except BaseException:
        stream.close()
        raise
    try:
        yield reservation
    except BaseException as exc:
        left: tuple[str, ...] = ()
        with contextlib.suppress(ApfError):  # what happened first is told; the next run there finds the rest
            left = reservation.end().released
        if left:
            raise _not_as_before(name, left) from exc
        raise
    left = reservation.end().released
    if left:
        raise _not_as_before(name, left)


def _not_as_before(name: str, left: tuple[str, ...]) -> InfraFault:
    return InfraFault(f"{name} is not as before: {'; '.join(left)}")


def _await(lines: Lines, stream: Stream, wish: ReserveWish, name: str, progress: Progress) -> Reserved:
    deadline = Deadline.after(wish.wait_s + _START_S, f"reserving {name}")
    while (line := lines.next(deadline)) is not None:
        match _message(line):
            case Reserved() as machine:
                return machine
            case Waiting(who, refused=True):
                raise HostBusy(f"{name} is in use by {who}", hint="--wait SECONDS waits for its end")
            case Waiting(who):
                progress(f"waiting for {name}, which is in use by {who}")
            case _:
                pass
    said = stream.errors().decode(errors="replace").strip()[-1000:]
    raise InfraFault(f"{name} cannot be reserved: {said or 'no reason given'}")
