# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands and files over SSH (paramiko): the only module that knows paramiko.

Four habits of paramiko shape this file (seen with 5.1): ``exec_command(timeout=)`` limits idle time and not the
command; ``recv_exit_status`` blocks for ever when output is unread; a peer that went silent still looks active; what
one thread says for a channel may be sent behind the CLOSE of another.  So both streams are read here with a deadline
of our own, silence is met with a question that must be answered, and _Transport drops what comes too late.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shlex
import signal
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import paramiko
from paramiko.common import MSG_CHANNEL_CLOSE

from harness.errors import DeadlineExpired, HostLost, InfraFault
from harness.hosts.deadline import Deadline
from harness.hosts.stream import MOST_ERRORS

# What goes wrong is raised; without a handler paramiko's threads print tracebacks besides.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_POLL_S = 0.05
_SILENCE_S = 30.0  # without any output for so long, ask whether the peer still answers
_ANSWER_S = 30.0  # and this is how long the answer may take (a host under swap pressure answers late)
_CHUNK = 1 << 16
_TRY_S = 10.0  # for each step of one try to connect
_CLOSE_S = 5.0  # for a command to end after its input did, or after SIGTERM


class _Transport(paramiko.Transport):
    """Sends nothing for a channel behind its CLOSE.

    A server ends the whole connection then ("EOF for unknown channel", "ieof for nonexistent channel").  paramiko makes
    a message under its channel's lock and sends it without (github.com/paramiko/paramiko/issues/1115), so an EOF or a
    WINDOW_ADJUST waits unsent in one thread while its own thread answers the server's CLOSE.
    """

    def open_channel(self, *args: Any, **more: Any) -> paramiko.Channel:
        channel = super().open_channel(*args, **more)
        channel.transport = _OneChannel(self)  # type: ignore[assignment]  # that is all that a channel asks of it
        return channel

    def _send_message(self, data: Any) -> None:
        """Called for one message of a channel at a time: under ``clear_to_send_lock``."""
        way = getattr(data, "way", None)
        if way is not None:
            if way.closed:
                return
            way.closed = data.asbytes()[0] == MSG_CHANNEL_CLOSE
        super()._send_message(data)  # type: ignore[misc]  # not among the stubs


class _OneChannel:
    """A channel's way to its transport: numbers of channels are used again, so a message says whose it is."""

    def __init__(self, transport: _Transport) -> None:
        self.closed = False
        self._transport = transport

    def _send_user_message(self, message: Any) -> None:
        message.way = self
        self._transport._send_user_message(message)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


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
        through: Link | None = None,
    ) -> Link:
        """Connect with exactly this client key to exactly this host key ("ssh-ed25519 AAAA...", as in known_hosts).

        :param through: a connection to another machine, from which this one is reached.
        :raise DeadlineExpired: no SSH server answered in time.
        :raise HostLost: the server answered with another host key, or refused our key.
        :raise InfraFault: the client key cannot be used.
        """
        pinned = paramiko.hostkeys.HostKeyEntry.from_line(f"pinned {host_key}")
        if pinned is None or pinned.key is None:
            raise InfraFault(f"not an SSH host key: {host_key!r}")
        name = host if port == 22 else f"[{host}]:{port}"
        key = _client_key(client_key)
        last = "nothing tried"
        while not deadline.expired:
            check()
            client = paramiko.SSHClient()
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
            client.get_host_keys().add(name, pinned.key.get_name(), pinned.key)
            step = deadline.remaining(_TRY_S)
            try:
                client.connect(
                    host, port, user, pkey=key, allow_agent=False, look_for_keys=False,
                    sock=through.tunnel(host, port, step) if through is not None else None,
                    timeout=step, banner_timeout=step, auth_timeout=step, channel_timeout=step,
                    transport_factory=cast(Any, _Transport),  # the stubs know of words that 5.1 does not say
                )  # fmt: skip
            except paramiko.BadHostKeyException as exc:
                client.close()
                raise HostLost(f"SSH to {name}: {exc}") from exc
            except (paramiko.SSHException, OSError, EOFError) as exc:
                if _refused(client, exc):
                    client.close()
                    raise HostLost(f"SSH to {name}: {exc}") from exc
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

    def tunnel(self, host: str, port: int, seconds: float) -> paramiko.Channel:
        """A connection from this link's other end to somewhere else.

        :raise paramiko.SSHException: it was refused, or took too long.  :raise HostLost: the link went away.
        """
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise HostLost("the SSH connection to the machine on the way is closed")
        return transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=max(1.0, seconds))

    def open_stream(self, argv: list[str]) -> SshStream:
        """Start a command; see stream.Stream.

        :raise HostLost: the link went away.
        """
        channel = self._channel(Deadline.after(_ANSWER_S, argv[0]))
        try:
            # The shell prints its pid first, so that the command can be terminated from outside.
            channel.exec_command("echo $$ >&2; exec " + shlex.join(argv))
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise HostLost(f"the link was lost during {argv[0]}: {exc!r}") from exc
        return SshStream(self, channel, argv[0])

    def interact(self, stdin: int, stdout: int) -> int:
        """A login shell on a pseudo-terminal of the host, between these descriptors of a terminal, until it ends.

        The terminal is in raw mode meanwhile: Ctrl-C is for the shell.

        :return: the shell's exit code; -1 when it has none.
        :raise HostLost: the link went away, or what check() raises.
        """
        channel = self._channel(Deadline.after(_ANSWER_S, "shell"))
        try:
            size = os.get_terminal_size(stdout)
            channel.get_pty(os.environ.get("TERM", "vt100"), size.columns, size.lines)
            channel.invoke_shell()
            with _raw(stdin), _on_resize(lambda: _resize(channel, stdout)):
                self._pass_on(channel, stdin, stdout)
            # The end of the output comes before the exit status.
            return channel.recv_exit_status() if channel.status_event.wait(_CLOSE_S) else -1
        except (paramiko.SSHException, EOFError, ConnectionError) as exc:
            self.check()
            raise HostLost(f"the link was lost during the shell: {exc!r}") from exc
        finally:
            with contextlib.suppress(Exception):
                channel.close()

    def _pass_on(self, channel: paramiko.Channel, stdin: int, stdout: int) -> None:
        """Both directions, until the shell ends."""
        sources: list[int | paramiko.Channel] = [channel, stdin]
        while True:
            ready, _, _ = select.select(sources, [], [], 0.5)
            if channel in ready:
                data = channel.recv(_CHUNK)
                if not data:
                    return
                while data:
                    data = data[os.write(stdout, data) :]
            if stdin in ready:
                typed = os.read(stdin, 1024)
                if typed:
                    channel.sendall(typed)
                else:
                    sources.remove(stdin)
                    channel.shutdown_write()
            if not ready:
                self.check()
                transport = channel.get_transport()
                if transport is None or not transport.is_active():
                    raise HostLost("the link was lost during the shell")

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
                deadline = Deadline.after(_CLOSE_S, "kill")
                with contextlib.closing(self._channel(deadline)) as channel:
                    # The agent's own process: it undoes everything on SIGTERM before it ends.
                    channel.exec_command(f"kill -TERM {pid}")
                    while not channel.exit_status_ready() and not deadline.expired:
                        time.sleep(_POLL_S)


class SshStream:
    """A command over SSH; made by Link.open_stream(), see stream.Stream."""

    def __init__(self, link: Link, channel: paramiko.Channel, what: str) -> None:
        self._link = link
        self._channel = channel
        self._what = what
        self._err = bytearray()
        channel.settimeout(_POLL_S)

    @property
    def what(self) -> str:
        return self._what

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """paramiko's ways of saying that the link is gone, as HostLost, or as what check() finds to be the reason."""
        try:
            yield
        except (paramiko.SSHException, EOFError, ConnectionError) as exc:
            self._link.check()
            raise HostLost(f"the link was lost during {self._what}: {exc!r}") from exc

    def send(self, data: bytes, deadline: Deadline) -> None:
        view = memoryview(data)
        with self._losing():
            while view:
                self._link.check()
                self._expire(deadline)
                try:
                    sent = self._channel.send(view.tobytes())
                except TimeoutError:
                    continue
                except OSError as exc:  # paramiko's "Socket is closed"
                    raise HostLost(f"{self._what} has ended") from exc
                if sent == 0:
                    raise HostLost(f"{self._what} has closed its input")
                view = view[sent:]

    def end_input(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.shutdown_write()

    def read(self, deadline: Deadline) -> bytes:
        with self._losing():
            heard = time.monotonic()
            while True:
                if self._take_errors():
                    heard = time.monotonic()
                if self._channel.recv_ready():
                    return self._channel.recv(_CHUNK)
                if self._channel.eof_received and not self._channel.recv_ready():
                    self._take_errors()
                    return b""
                heard = self._wait(deadline, heard)

    def code(self, deadline: Deadline) -> int:
        with self._losing():
            heard = time.monotonic()
            while not self._channel.exit_status_ready():
                if self._take_errors():
                    heard = time.monotonic()
                heard = self._wait(deadline, heard)
            self._take_errors()
            return self._channel.recv_exit_status()

    def _take_errors(self) -> bool:
        got = False
        while self._channel.recv_stderr_ready():
            told = self._channel.recv_stderr(_CHUNK)
            self._err += told[: max(0, MOST_ERRORS - len(self._err))]
            got = True
        return got

    def _wait(self, deadline: Deadline, heard: float) -> float:
        """A moment of silence, in which everything is looked at that could end it; when something was last heard."""
        self._link.check()
        transport = self._channel.get_transport()
        if transport is None or not transport.is_active() or (
            self._channel.closed and not self._channel.exit_status_ready()
        ):  # fmt: skip
            raise HostLost(f"the link was lost during {self._what}")
        self._expire(deadline)
        if time.monotonic() - heard > _SILENCE_S:
            self._link.ping()
            heard = time.monotonic()
        time.sleep(_POLL_S)
        return heard

    def _expire(self, deadline: Deadline) -> None:
        if deadline.expired:
            self.kill()
            raise DeadlineExpired(f"{deadline.what}: {self._what} did not answer in time")

    def errors(self) -> bytes:
        return bytes(self._err).partition(b"\n")[2]

    def kill(self) -> None:
        with contextlib.suppress(Exception):
            self._take_errors()
            self._link.kill(bytes(self._err))

    def close(self) -> None:
        """Ends the command's input and gives it a moment to end.

        dropbear 2022.83 dies when a channel is closed while its command still writes ("Failed assertion ...
        !channel->sent_close"), and the whole connection with it.
        """
        self.end_input()
        with contextlib.suppress(Exception):
            deadline = Deadline.after(_CLOSE_S, "close")
            transport = self._channel.get_transport()
            while transport.is_active() and not self._channel.closed and not deadline.expired:
                while self._channel.recv_ready():
                    self._channel.recv(_CHUNK)
                self._take_errors()
                if self._channel.exit_status_ready() and self._channel.eof_received:
                    break
                time.sleep(_POLL_S)
            self._channel.close()


def _refused(client: paramiko.SSHClient, exc: Exception) -> bool:
    """Our key was; a server that has not answered yet, or has gone meanwhile, is an AuthenticationException, too."""
    transport = client.get_transport()
    answered = transport is not None and transport.is_active() and str(exc) != "Authentication timeout."
    return isinstance(exc, paramiko.AuthenticationException) and answered


def _client_key(path: Path) -> paramiko.PKey:
    """:raise InfraFault: no such key, or one with a passphrase: nobody is there to be asked for it."""
    try:
        return paramiko.PKey.from_path(path)
    except (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as exc:
        raise InfraFault(f"{path} cannot be used as a private key: {exc}") from exc
    except TypeError as exc:  # cryptography's word for "a passphrase is needed"
        raise InfraFault(f"{path} cannot be used as a private key: it has a passphrase") from exc


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """The terminal without line editing, echo and signals; as before afterwards."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _on_resize(act: Callable[[], None]) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _resize(channel: paramiko.Channel, terminal: int) -> None:
    with contextlib.suppress(paramiko.SSHException, OSError):
        size = os.get_terminal_size(terminal)
        channel.resize_pty(size.columns, size.lines)
