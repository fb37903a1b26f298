# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands and files over SSH (paramiko): the only module that knows paramiko.

Three habits of paramiko shape this file (seen with 5.1): ``exec_command(timeout=)`` limits idle time and not the
command; ``recv_exit_status`` blocks for ever when output is unread; a peer that went silent still looks active.  So
both streams are read here with a deadline of our own, and silence is met with a question that must be answered.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import paramiko

from harness.errors import DeadlineExpired, HostLost, InfraFault
from harness.hosts.base import Completed
from harness.hosts.deadline import Deadline
from harness.hosts.untar import untar

_POLL_S = 0.05
_SILENCE_S = 30.0  # without any output for so long, ask whether the peer still answers
_ANSWER_S = 30.0  # and this is how long the answer may take (a host under swap pressure answers late)
_CHUNK = 1 << 16


class Link:
    """One SSH connection.  Life cycle: open after open(), closed after close(); nothing reconnects by itself.

    ``check`` is called while waiting and may raise, to end a wait for a better reason than silence.
    """

    def __init__(self, client: paramiko.SSHClient, check: Callable[[], None]) -> None:
        self._client = client
        self.check = check

    @staticmethod
    def open(
        host: str,
        port: int,
        user: str,
        *,
        client_key: Path,
        host_key: str,
        deadline: Deadline,
        check: Callable[[], None],
    ) -> Link:
        """Connect with exactly this client key to exactly this host key ("ssh-ed25519 AAAA...", as in known_hosts).

        :raise DeadlineExpired: no SSH server answered in time.
        :raise HostLost: the server answered with another host key, or refused our key.
        """
        pinned = paramiko.hostkeys.HostKeyEntry.from_line(f"pinned {host_key}")
        if pinned is None or pinned.key is None:
            raise InfraFault(f"not an SSH host key: {host_key!r}")
        name = host if port == 22 else f"[{host}]:{port}"
        key = paramiko.Ed25519Key.from_private_key_file(str(client_key))
        last = "nothing tried"
        while not deadline.expired:
            check()
            client = paramiko.SSHClient()
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
            client.get_host_keys().add(name, pinned.key.get_name(), pinned.key)
            step = deadline.remaining(10.0)
            try:
                client.connect(
                    host, port, user, pkey=key, allow_agent=False, look_for_keys=False,
                    timeout=step, banner_timeout=step, auth_timeout=step, channel_timeout=step,
                )  # fmt: skip
            except (paramiko.BadHostKeyException, paramiko.AuthenticationException) as exc:
                client.close()
                raise HostLost(f"SSH to {name}: {exc}") from exc
            except (paramiko.SSHException, OSError, EOFError) as exc:
                client.close()
                last = f"{type(exc).__name__}: {exc}"
                time.sleep(deadline.remaining(0.2))
                continue
            return Link(client, check)
        raise DeadlineExpired(f"SSH to {name} did not answer in time ({last})")

    def close(self) -> None:
        """Close the connection; commands that still run there see their standard input end."""
        with contextlib.suppress(Exception):
            self._client.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _channel(self, deadline: Deadline) -> paramiko.Channel:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise HostLost("the SSH connection is closed")
        try:
            return transport.open_session(timeout=max(1.0, deadline.remaining(_ANSWER_S)))
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise HostLost(f"no SSH channel: {exc}") from exc

    def run(
        self,
        argv: list[str],
        *,
        deadline: Deadline,
        on_line: Callable[[str], None] | None = None,
        stdin: io.BufferedIOBase | None = None,
    ) -> Completed:
        """Run a command to its end.

        With ``stdin`` its bytes are sent and then the command's input is closed; without, the input stays open until
        the command has ended.  For :raise: see base.Host.run.
        """
        channel = self._channel(deadline)
        try:
            # The shell prints the process group first, so that an expired deadline can kill it from outside.
            channel.exec_command("echo $$ >&2; exec " + shlex.join(argv))
            if stdin is not None:
                self._send(channel, stdin, deadline)
            return self._pump(channel, deadline, on_line, argv)
        except (paramiko.SSHException, EOFError, ConnectionError) as exc:
            self.check()
            raise HostLost(f"the link was lost during {argv[0]}: {exc!r}") from exc
        finally:
            with contextlib.suppress(Exception):
                channel.close()

    def _send(self, channel: paramiko.Channel, stdin: io.BufferedIOBase, deadline: Deadline) -> None:
        channel.settimeout(_POLL_S)
        while chunk := stdin.read(_CHUNK):
            view = memoryview(chunk)
            while view:
                self.check()
                deadline.check()
                try:
                    sent = channel.send(view.tobytes())
                except TimeoutError:
                    continue
                if sent == 0:
                    raise HostLost("the command closed its input early")
                view = view[sent:]
        channel.shutdown_write()

    def _pump(
        self, channel: paramiko.Channel, deadline: Deadline, on_line: Callable[[str], None] | None, argv: list[str]
    ) -> Completed:
        out, err = bytearray(), bytearray()
        heard = time.monotonic()
        while True:
            got = False
            while channel.recv_ready():
                out += channel.recv(_CHUNK)
                got = True
            while channel.recv_stderr_ready():
                err += channel.recv_stderr(_CHUNK)
                got = True
            if on_line is not None:
                _take_lines(out, on_line)
            if got:
                heard = time.monotonic()
                continue
            if channel.exit_status_ready() and channel.eof_received:
                break
            self.check()
            transport = channel.get_transport()
            if transport is None or not transport.is_active() or (channel.closed and not channel.exit_status_ready()):
                raise HostLost(f"the link was lost during {argv[0]}")
            if deadline.expired:
                self.kill(bytes(err))
                raise DeadlineExpired(f"{deadline.what}: {argv[0]} did not end in time")
            if time.monotonic() - heard > _SILENCE_S:
                self.ping()
                heard = time.monotonic()
            time.sleep(_POLL_S)
        if on_line is not None and out:
            on_line(bytes(out).decode(errors="replace"))
            out.clear()
        return Completed(channel.recv_exit_status(), bytes(out), bytes(err).partition(b"\n")[2])

    def converse(self, argv: list[str]) -> Talk:
        """Start a command that answers lines; see base.Conversation."""
        channel = self._channel(Deadline.after(_ANSWER_S, argv[0]))
        try:
            channel.exec_command("echo $$ >&2; exec " + shlex.join(argv))
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise HostLost(f"the link was lost during {argv[0]}: {exc!r}") from exc
        return Talk(self, channel, argv[0])

    def ping(self) -> None:
        """:raise HostLost: the peer does not answer a trivial command; a keepalive alone would not tell."""
        deadline = Deadline.after(_ANSWER_S, "heartbeat")
        channel = self._channel(deadline)
        try:
            channel.exec_command("true")
            while not channel.exit_status_ready():
                self.check()
                if deadline.expired:
                    raise HostLost(f"the host did not answer for {_ANSWER_S:.0f} s")
                time.sleep(_POLL_S)
        except (paramiko.SSHException, EOFError, ConnectionError) as exc:
            raise HostLost(f"the link was lost: {exc!r}") from exc
        finally:
            with contextlib.suppress(Exception):
                channel.close()

    def kill(self, err: bytes) -> None:
        """Terminate the command whose standard error begins with its pid."""
        pid = err.split(b"\n", 1)[0].decode(errors="replace")
        if pid.isdigit():
            with contextlib.suppress(HostLost, DeadlineExpired, paramiko.SSHException, OSError):
                channel = self._channel(Deadline.after(5, "kill"))
                # The agent's own process: it undoes everything on SIGTERM before it ends.
                channel.exec_command(f"kill -TERM {pid}")

    def put(self, source: Path, target: str, *, deadline: Deadline) -> None:
        """Copy one file; the target appears whole or not at all."""
        with source.open("rb") as stream:
            done = self.run(
                ["sh", "-c", 'cat > "$1.part" && mv "$1.part" "$1"', "sh", target], deadline=deadline, stdin=stream
            )
        if done.code != 0:
            raise InfraFault(f"cannot write {target} on the host: {done.stderr.decode(errors='replace').strip()}")

    def fetch(self, source: str, target: Path, *, deadline: Deadline, remove: bool = False) -> None:
        """Copy the regular files below a folder, as a tar stream."""
        script = 'tar -C "$1" -cf - . && rm -rf "$1"' if remove else 'exec tar -C "$1" -cf - .'
        done = self.run(["sh", "-c", script, "sh", source], deadline=deadline)
        if done.code != 0:
            raise InfraFault(f"cannot fetch {source}: {done.stderr.decode(errors='replace').strip()}")
        untar(done.stdout, target)


class Talk:
    """A command that answers lines; made by Link.converse()."""

    def __init__(self, link: Link, channel: paramiko.Channel, what: str) -> None:
        self._link = link
        self._channel = channel
        self._what = what
        self._out = bytearray()
        self._err = bytearray()

    def ask(self, line: str, *, deadline: Deadline, on_line: Callable[[str], bool]) -> None:
        """See base.Conversation.ask."""
        try:
            self._channel.settimeout(max(1.0, deadline.remaining()))
            self._channel.sendall(line.encode() + b"\n")
            self._hear(deadline, on_line)
        except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as exc:
            self._link.check()
            raise HostLost(f"the link was lost during {self._what}: {exc!r}") from exc

    def _hear(self, deadline: Deadline, on_line: Callable[[str], bool]) -> None:
        heard = time.monotonic()
        while True:
            got = False
            while self._channel.recv_ready():
                self._out += self._channel.recv(_CHUNK)
                got = True
            while self._channel.recv_stderr_ready():
                self._err += self._channel.recv_stderr(_CHUNK)
                got = True
            while (end := self._out.find(b"\n")) >= 0:
                text = bytes(self._out[:end]).decode(errors="replace")
                del self._out[: end + 1]
                if on_line(text):
                    return
            if got:
                heard = time.monotonic()
                continue
            self._link.check()
            if self._channel.closed or self._channel.eof_received:
                raise HostLost(f"{self._what} ended in the middle of its answer", hint=self._last_words())
            if deadline.expired:
                self._link.kill(bytes(self._err))
                raise DeadlineExpired(f"{deadline.what}: {self._what} did not answer in time")
            if time.monotonic() - heard > _SILENCE_S:
                self._link.ping()
                heard = time.monotonic()
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        return bytes(self._err).partition(b"\n")[2].decode(errors="replace").strip()[-2000:]

    def close(self) -> None:
        """See base.Conversation.close."""
        with contextlib.suppress(Exception):
            self._channel.close()


def _take_lines(buffer: bytearray, on_line: Callable[[str], None]) -> None:
    while (end := buffer.find(b"\n")) >= 0:
        line = bytes(buffer[:end]).decode(errors="replace")
        del buffer[: end + 1]
        on_line(line)
