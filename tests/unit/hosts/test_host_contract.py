# SPDX-License-Identifier: GPL-2.0-or-later
"""What base.Host promises, held against each kind of host: this machine always, a virtual host with ``-m host``.

The third is this machine over SSH: the link that a virtual host has, without the virtual host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import secrets
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.artifacts.images import images
from harness.artifacts.images.keys import host_keys
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.errors import DeadlineExpired, HostLost, InfraFault, Unsupported
from harness.hosts import KINDS, HostOrder
from harness.hosts.base import Host
from harness.hosts.lab_file import LabHost, find_lab_host, lab_text
from harness.hosts.labgrid_place import acquired
from harness.hosts.local import LocalMachine
from harness.hosts.performer import Payload
from harness.hosts.reserved_host import ReservedOrder, reserved_host
from harness.hosts.ssh import connect
from harness.hosts.ssh_machine import connect_way
from harness.progress import silent
from tests.this_machine import this_machine_alone
from tests.unit.hosts.dropbear import Server, start_dropbear
from tests.unit.hosts.labgrid_lab import start_labgrid
from tests.unit.waiting import HANG_S, wait_until


def lab_of(folder: Path, server: Server) -> Path:
    """A file of lab machines that has this machine, over SSH, as "box"."""
    entry = LabHost("box", "127.0.0.1", "root", server.client_key, server.host_key, port=server.port)
    (folder / "lab.toml").write_text(lab_text("box", entry))
    return folder / "lab.toml"


def order_for(kind: str, folder: Path) -> ReservedOrder:
    # No disk is needed for what is tested here, and the machine is ours among these tests only.
    return ReservedOrder(
        kind,
        images.agent_zipapp(Store()),
        silent,
        disk="/dev/null",
        wait_s=600,
        state=str(folder / "state"),
        compare=False,
    )


def service_of(server: Server) -> str:
    return f"  NetworkService:\n    address: 127.0.0.1\n    username: root\n    port: {server.port}\n"


_SLOW = (pytest.param("labgrid", marks=pytest.mark.long), pytest.param("virtual", marks=pytest.mark.host))


@pytest.fixture(scope="module", params=["local", "ssh", *_SLOW])
def host_of_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One host for all tests of this file: none of them does it any harm."""
    with this_machine_alone(), _host(request.param, tmp_path_factory.mktemp(request.param)) as one:
        yield one


@pytest.fixture
def host(host_of_file: Host, host_settings: None) -> Host:
    return host_of_file


@contextlib.contextmanager
def _host(kind: str, folder: Path) -> Iterator[Host]:
    if kind == "local":
        # No KVM is needed for what is tested here, so not local.prepare().
        try:
            machine = LocalMachine()
        except Unsupported as exc:
            pytest.skip(f"no root here: {exc.message}")
        with reserved_host(machine, order_for("local", folder)) as here:
            yield here
        return
    if kind == "ssh":
        with (
            start_dropbear(folder) as server,
            connect(lab_of(folder, server), "box") as remote,
            reserved_host(remote, order_for("ssh", folder)) as there,
        ):
            yield there
        return
    if kind == "labgrid":
        with start_dropbear(folder) as server, start_labgrid(folder, {"box": service_of(server)}) as labgrid:
            known = dataclasses.replace(find_lab_host(lab_of(folder, server), "box")[0], address="", port=22)
            with (
                acquired(dataclasses.replace(known, coordinator=labgrid.address), 0, silent) as found,
                connect_way((found,)) as remote,
                reserved_host(remote, order_for("ssh", folder)) as there,
            ):
                yield there
        return
    store = Store()
    payload = Payload(images.agent_zipapp(store), images.probe_guest(store))
    kernel = built_kernel.kernel(store, "debian-6.1")
    order = HostOrder(store, kernel, payload, lambda: folder / "console.txt", silent)
    with KINDS["virtual"].prepare(order).start() as booted:
        yield booted


@pytest.fixture
def place(host: Host) -> Iterator[str]:
    """A folder of the host."""
    path = f"/tmp/apf-contract-{secrets.token_hex(6)}"
    assert host.run(["mkdir", path], deadline_s=HANG_S).code == 0
    yield path
    host.run(["rm", "-rf", path], deadline_s=HANG_S)


def is_over(host: Host, place: str) -> bool:
    """A command that has noted its process id, unless it had no time for that."""
    return host.run(["sh", "-c", f"kill -0 $(cat {place}/pid)"], deadline_s=HANG_S).code != 0


def test_every_kind_of_host_is_held_to_this() -> None:
    assert set(KINDS) == {"local", "ssh", "labgrid", "virtual"}, "add the new kind to the fixture"


def test_commands(host: Host) -> None:
    lines: list[str] = []
    done = host.run(["sh", "-c", "echo one; echo two; echo bad >&2; exit 7"], deadline_s=HANG_S, on_line=lines.append)
    assert (done.code, lines, done.stdout, done.stderr) == (7, ["one", "two"], b"", b"bad\n")
    assert host.run(["echo", "it's $HOME; *"], deadline_s=HANG_S).stdout == b"it's $HOME; *\n"
    assert host.run(["true"], deadline_s=HANG_S).stdout == b""


def test_a_last_line_without_an_end_is_a_line(host: Host) -> None:
    lines: list[str] = []
    host.run(["printf", "a\\nb"], deadline_s=HANG_S, on_line=lines.append)
    assert lines == ["a", "b"]


def test_lines_come_as_they_are_written(host: Host, place: str) -> None:
    """The command goes on when its first line was heard."""
    heard: list[str] = []

    def on_line(line: str) -> None:
        heard.append(line)
        assert host.run(["touch", f"{place}/heard"], deadline_s=HANG_S).code == 0

    script = 'echo 1; until [ -e "$1/heard" ]; do sleep 0.1; done; echo 2'
    host.run(["sh", "-c", script, "sh", place], deadline_s=HANG_S, on_line=on_line)
    assert heard == ["1", "2"]


def test_commands_run_as_root(host: Host) -> None:
    assert host.run(["id", "-u"], deadline_s=HANG_S).stdout == b"0\n"


def test_a_lot_of_output_does_not_block(host: Host) -> None:
    done = host.run(["sh", "-c", "head -c 6000000 /dev/zero; head -c 3000000 /dev/zero >&2"], deadline_s=HANG_S)
    assert (len(done.stdout), len(done.stderr)) == (6_000_000, 3_000_000)


def test_the_input_stays_open_until_the_command_has_ended(host: Host) -> None:
    """`timeout 1 cat` ends by its timeout, not by an end of its input, which would be 0."""
    assert host.run(["timeout", "1", "cat"], deadline_s=HANG_S).code != 0


@pytest.mark.parametrize("noisy", [True, False], ids=["chatter", "silence"])
def test_the_deadline_is_for_the_whole_command_and_ends_it(host: Host, place: str, noisy: bool) -> None:
    script = f'echo $$ > "$1/pid"; for n in $(seq 1000); do {"echo chatter; " if noisy else ""}sleep 0.2; done'
    with pytest.raises(DeadlineExpired):
        host.run(["sh", "-c", script, "sh", place], deadline_s=3, on_line=lambda _line: None)
    wait_until(lambda: is_over(host, place), "the command's end")


def test_files_there_and_back(host: Host, place: str, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    host.run(["mkdir", f"{place}/sub"], deadline_s=HANG_S)
    host.put(tmp_path / "a", f"{place}/sub/a b", deadline_s=HANG_S)
    host.put(tmp_path / "empty", f"{place}/empty", deadline_s=HANG_S)
    host.fetch(place, tmp_path / "back", deadline_s=HANG_S)
    assert (tmp_path / "back/sub/a b").read_bytes() == data
    assert (tmp_path / "back/empty").read_bytes() == b""
    assert (tmp_path / "back/empty").stat().st_uid == os.getuid()
    assert not list((tmp_path / "back").rglob("*.part"))
    host.fetch(place, tmp_path / "again", deadline_s=HANG_S, remove=True)
    assert (tmp_path / "again/sub/a b").read_bytes() == data
    assert host.run(["ls", place], deadline_s=HANG_S).code != 0


def test_files_that_cannot_be_copied_are_told(host: Host, place: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(InfraFault, match="cannot write"):
        host.put(tmp_path / "a", f"{place}/absent/a", deadline_s=HANG_S)
    with pytest.raises(InfraFault, match="cannot fetch"):
        host.fetch(f"{place}/absent", tmp_path / "back", deadline_s=HANG_S)


def test_what_is_no_file_is_not_fetched(host: Host, place: str, tmp_path: Path) -> None:
    host.run(["ln", "-s", "/etc/passwd", f"{place}/link"], deadline_s=HANG_S)
    with pytest.raises(InfraFault, match="no file"):
        host.fetch(place, tmp_path / "back", deadline_s=HANG_S)


ECHO = 'while read x; do echo "1 $x"; echo "2 $x"; done; echo ended > "$1/ended"'


def test_a_conversation(host: Host, place: str) -> None:
    talk = host.converse(["sh", "-c", ECHO, "sh", place])
    for word in ("one", "two"):
        heard: list[str] = []

        def on_line(line: str, heard: list[str] = heard) -> bool:
            heard.append(line)
            return line.startswith("2")

        talk.ask(word, deadline_s=HANG_S, on_line=on_line)
        assert heard == [f"1 {word}", f"2 {word}"]
    talk.close()
    talk.close()
    wait_until(lambda: host.run(["pgrep", "-f", f"sh {place}"], deadline_s=HANG_S).stdout == b"", "its end")


def test_a_conversation_that_ends_in_the_middle(host: Host) -> None:
    talk = host.converse(["sh", "-c", "read x; echo half; echo because >&2; exit 3"])
    with pytest.raises(HostLost) as caught:
        talk.ask("x", deadline_s=HANG_S, on_line=lambda _line: False)
    assert caught.value.hint == "because"
    with pytest.raises(HostLost):
        talk.ask("again", deadline_s=HANG_S, on_line=lambda _line: True)
    talk.close()


def test_a_conversation_without_an_answer(host: Host, place: str) -> None:
    talk = host.converse(["sh", "-c", 'echo $$ > "$1/pid"; while read x; do :; done', "sh", place])
    with pytest.raises(DeadlineExpired):
        talk.ask("x", deadline_s=2, on_line=lambda _line: True)
    talk.close()
    wait_until(lambda: is_over(host, place), "the command's end")


def test_the_kernel_log_from_a_mark_on(host: Host) -> None:
    before, after = (f"apf-contract {secrets.token_hex(6)}" for _ in range(2))

    def say(text: str) -> None:
        assert host.run(["sh", "-c", f"echo '<4>{text}' > /dev/kmsg"], deadline_s=HANG_S).code == 0

    say(before)
    wait_until(lambda: before.encode() in host.console(), "the line before")
    mark = host.console_mark()
    say(after)
    wait_until(lambda: after.encode() in host.console(mark), "the line behind the mark")
    assert before.encode() not in host.console(mark)
    host.check()


def test_the_first_taint_is_kept(host: Host) -> None:
    assert not host.tainted
    assert host.facts.kind in KINDS
    assert host.slowness() >= 1.0
    assert host.diagnose()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_dropbear(tmp_path_factory.mktemp("ssh")) as started:
        yield started


def test_another_host_key_is_refused(server: Server, tmp_path: Path) -> None:
    other = host_keys(Store(tmp_path)).host_public
    with pytest.raises(HostLost, match="key"):
        dataclasses.replace(server, host_key=other).connect()


def test_another_client_key_is_refused(server: Server, tmp_path: Path) -> None:
    other = host_keys(Store(tmp_path)).client_private
    with pytest.raises(HostLost):
        dataclasses.replace(server, client_key=other).connect()


def test_a_link_that_is_cut_is_a_lost_host(server: Server, tmp_path: Path) -> None:
    with connect(lab_of(tmp_path, server), "box") as machine:
        with pytest.raises(HostLost):
            machine.run(["sh", "-c", "kill -9 $PPID; sleep 1000"], deadline_s=HANG_S)
        with pytest.raises(HostLost):
            machine.run(["true"], deadline_s=HANG_S)


def test_a_shell_between_two_terminals(server: Server) -> None:
    """interact(): what is typed comes to the shell, what it says comes back, its exit code is returned."""
    master, slave = pty.openpty()
    seen = bytearray()
    pid = os.fork()
    if pid == 0:
        code = 99
        with contextlib.suppress(BaseException), server.connect() as link:
            code = link.interact(slave, slave)
        os._exit(code)
    try:
        # What is typed before raw mode is dropped.
        wait_until(lambda: _read(master, seen) and bool(seen), "the prompt")
        os.write(master, b"echo sum-$((40 + 2)); tty; stty size\n")
        wait_until(lambda: _read(master, seen) and b"sum-42" in seen and b"/dev/pts/" in seen, "the answers")
        os.write(master, b"exit 7\n")
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        wait_until(lambda: _read(master, seen) and os.waitid(os.P_PID, pid, ended) is not None, "the shell's end")
        status, pid = os.waitpid(pid, 0)[1], 0
        assert os.waitstatus_to_exitcode(status) == 7
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(master)
        os.close(slave)


def _read(terminal: int, into: bytearray) -> bool:
    while select.select([terminal], [], [], 0.1)[0]:
        into += os.read(terminal, 65536)
    return True
