# SPDX-License-Identifier: GPL-2.0-or-later
"""A running command of a host as a stream of bytes, and everything that hosts do with commands, built over it.

A kind of host implements one thing: open a command.  StreamHost gives it run, converse, put and fetch.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from harness.errors import HostLost, InfraFault
from harness.hosts.base import Completed, Conversation
from harness.hosts.deadline import Deadline
from harness.hosts.untar import untar

_CHUNK = 1 << 16
_TAIL = 2000  # characters of standard error in a message
MOST_OUTPUT = 1 << 28
"""Bytes of a command's output that are taken; a host under test may be broken, or worse."""
MOST_LINE = 1 << 24
MOST_ERRORS = 1 << 22  # of standard error; what comes after is dropped


class Stream(Protocol):
    """A command that was started.  Its standard error is collected meanwhile; its input stays open until it is ended,
    so that the command can notice our death.
    """

    @property
    def what(self) -> str:
        """Its name, for messages."""

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Write to its standard input.

        :raise DeadlineExpired: it did not take all of it in time; it was terminated.
        :raise HostLost: its input is closed, or the host or the link went away.
        """

    def end_input(self) -> None:
        """Close its standard input; never raises."""

    def read(self, deadline: Deadline) -> bytes:
        """The next piece of its standard output, as soon as there is one; empty at the end.

        :raise DeadlineExpired: nothing came in time; the command was terminated.
        :raise HostLost: the host or the link went away; what became of the command is unknown.
        """

    def code(self, deadline: Deadline) -> int:
        """Its exit code, after the end of its output; negative: the signal that ended it, where that is known.

        :raise DeadlineExpired: it closed its output and did not end in time; it was terminated.
        :raise HostLost: as read().
        """

    def errors(self) -> bytes:
        """Its standard error so far."""

    def kill(self) -> None:
        """Tell it to end (SIGTERM, to which the agent undoes everything); never raises."""

    def close(self) -> None:
        """End its input and let go of it; never raises.  A local command is waited for, though not for ever: errors()
        tells that it still runs."""


class Lines:
    """The complete lines of a stream's standard output."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    def next(self, deadline: Deadline) -> str | None:
        """The next line without its end; None when the output has ended (rest() has what follows the last newline).

        :raise HostLost: see Stream.read; or the line is longer than MOST_LINE.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            chunk = self._stream.read(deadline)
            if not chunk:
                return None
            self._buffer += chunk
            if len(self._buffer) > MOST_LINE and self._buffer.find(b"\n") < 0:
                self._stream.kill()
                raise HostLost(f"{self._stream.what} sent a line of more than {MOST_LINE >> 20} MiB")
        line = bytes(self._buffer[:end]).decode(errors="replace")
        del self._buffer[: end + 1]
        return line

    def rest(self) -> bytes:
        """What came after the last newline."""
        return bytes(self._buffer)


class Talk:
    """A command that answers lines; see base.Conversation.

    :param guard: entered around each exchange; it may raise a better reason than that the command was lost.
    """

    def __init__(self, stream: Stream, guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._stream = stream
        self._guard = guard
        self._lines = Lines(stream)

    def ask(self, line: str, *, deadline_s: float, on_line: Callable[[str], bool]) -> None:
        deadline = Deadline.after(deadline_s, self._stream.what)
        with self._guard():
            try:
                self._stream.send(line.encode() + b"\n", deadline)
                while (told := self._lines.next(deadline)) is not None:
                    if on_line(told):
                        return
            except HostLost as exc:
                raise HostLost(exc.message, hint=exc.hint or self._last_words()) from exc
            raise HostLost(f"{self._stream.what} ended in the middle of its answer", hint=self._last_words())

    def _last_words(self) -> str:
        return self._stream.errors().decode(errors="replace").strip()[-_TAIL:]

    def close(self) -> None:
        self._stream.close()


class StreamHost(ABC):
    """What hosts have in common: commands and files, over open()."""

    @abstractmethod
    def open(self, argv: list[str]) -> Stream:
        """Start a command, as root.

        :raise InfraFault: it cannot be started.  :raise HostLost: the host or the link went away.
        """

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Around whatever waits for a command: a place for a host to find a better reason for a loss."""
        yield

    def run(
        self, argv: list[str], *, deadline_s: float, on_line: Callable[[str], None] | None = None
    ) -> Completed:  # fmt: skip
        """See base.Host.run."""
        deadline = Deadline.after(deadline_s, argv[0])
        with self.guard(), contextlib.closing(self.open(argv)) as stream:
            out = bytearray()
            if on_line is None:
                while chunk := stream.read(deadline):
                    out += chunk
                    if len(out) > MOST_OUTPUT:
                        stream.kill()
                        raise HostLost(f"{stream.what} sent more than {MOST_OUTPUT >> 20} MiB")
            else:
                lines = Lines(stream)
                while (line := lines.next(deadline)) is not None:
                    on_line(line)
                if lines.rest():
                    on_line(lines.rest().decode(errors="replace"))
            return Completed(stream.code(deadline), bytes(out), stream.errors())

    def converse(self, argv: list[str]) -> Conversation:
        """See base.Host.converse."""
        with self.guard():
            return Talk(self.open(argv), self.guard)

    def put(self, source: Path, target: str, *, deadline_s: float) -> None:
        """See base.Host.put; the target appears whole or not at all."""
        deadline = Deadline.after(deadline_s, f"copying {source.name}")
        script = 'cat > "$1.part" && mv "$1.part" "$1"'
        with (
            self.guard(),
            source.open("rb") as file,
            contextlib.closing(self.open(["sh", "-c", script, "sh", target])) as stream,
        ):
            with contextlib.suppress(HostLost):  # a command that ends early: its exit code says why, or that it is lost
                while chunk := file.read(_CHUNK):
                    stream.send(chunk, deadline)
            stream.end_input()
            while stream.read(deadline):
                pass
            if stream.code(deadline) != 0:
                said = stream.errors().decode(errors="replace").strip()
                raise InfraFault(f"cannot write {target} on the host: {said}")

    def fetch(self, source: str, target: Path, *, deadline_s: float, remove: bool = False) -> None:
        """See base.Host.fetch; as a tar stream, so that the files are ours."""
        script = 'tar -C "$1" -cf - . && rm -rf "$1"' if remove else 'exec tar -C "$1" -cf - .'
        done = self.run(["sh", "-c", script, "sh", source], deadline_s=deadline_s)
        if done.code != 0:
            raise InfraFault(f"cannot fetch {source}: {done.stderr.decode(errors='replace').strip()}")
        untar(done.stdout, target)
