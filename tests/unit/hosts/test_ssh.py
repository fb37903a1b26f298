# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines of the lab over real SSH (dropbear): keys that are refused, machines on the way, and the kernel there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko import BadHostKeyException, PKey, ServerInterface, Transport
from paramiko.common import AUTH_SUCCESSFUL, MSG_CHANNEL_EOF, MSG_CHANNEL_WINDOW_ADJUST

from harness.artifacts.images import images
from harness.artifacts.images.keys import host_keys
from harness.artifacts.store import Store
from harness.errors import DeadlineExpired, HostLost, InfraFault
from harness.hosts import ssh_link
from harness.hosts.deadline import Deadline
from harness.hosts.lab_file import LabHost, lab_text
from harness.hosts.reserved_host import ReservedOrder, RunningKernel, reserved_host
from harness.hosts.ssh import connect
from harness.hosts.ssh_link import SshStream
from harness.hosts.ssh_machine import SshMachine
from harness.progress import silent
from tests.unit.hosts.dropbear import Server, start_dropbear
from tests.unit.waiting import HANG_S, wait_until


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two servers of this machine, with keys of their own."""
    with (
        start_dropbear(tmp_path_factory.mktemp("gate")) as gate,
        start_dropbear(tmp_path_factory.mktemp("box")) as box,
    ):
        yield gate, box


def entry(name: str, server: Server, jump: str = "") -> LabHost:
    return LabHost(name, "127.0.0.1", "root", server.client_key, server.host_key, port=server.port, jump=jump)


def lab(folder: Path, *hosts: LabHost) -> Path:
    path = folder / "lab.toml"
    path.write_text("".join(lab_text(host.name, host) for host in hosts))
    return path


def test_a_machine_is_reached_through_another(servers: tuple[Server, Server], tmp_path: Path) -> None:
    gate, box = servers
    path = lab(tmp_path, entry("gate", gate), entry("box", box, jump="gate"))
    with connect(path, "box") as machine:
        done = machine.run(["sh", "-c", "echo $SSH_CONNECTION"], deadline_s=HANG_S)
    assert done.stdout.split()[3] == str(box.port).encode()
    # What came through is another process of this machine: its port is not one of ours, but of the server on the way.
    assert machine.name == "box"


@pytest.mark.parametrize("which", ["gate", "box"])
def test_a_changed_host_key_is_refused_on_the_way_and_at_the_end(
    which: str, servers: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: that is no reason to try again."""
    refused: list[str] = []

    class Counting(BadHostKeyException):
        def __init__(self, name: str, *keys: PKey) -> None:
            super().__init__(name, *keys)
            refused.append(name)

    monkeypatch.setattr("paramiko.client.BadHostKeyException", Counting)
    other = host_keys(Store(tmp_path / "other")).host_public
    gate, box = (
        dataclasses.replace(server, host_key=other) if name == which else server
        for name, server in zip(("gate", "box"), servers, strict=True)
    )
    path = lab(tmp_path, entry("gate", gate), entry("box", box, jump="gate"))
    with pytest.raises(HostLost, match=rf"{which}: .*key"), connect(path, "box"):
        pass
    assert len(refused) == 1


def test_our_key_is_refused(servers: tuple[Server, Server], tmp_path: Path) -> None:
    wrong = dataclasses.replace(servers[1], client_key=host_keys(Store(tmp_path / "other")).client_private)
    with pytest.raises(HostLost, match=r"box: .*uthentication"), connect(lab(tmp_path, entry("box", wrong)), "box"):
        pass


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(servers: tuple[Server, Server], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )  # fmt: skip
    for key, why in ((locked, "passphrase|encrypted"), (tmp_path / "absent", "No such file")):
        wrong = dataclasses.replace(servers[1], client_key=key)
        with pytest.raises(InfraFault, match=why), connect(lab(tmp_path, entry("box", wrong)), "box"):
            pass


def test_a_closed_port_on_the_way(
    servers: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.hosts.ssh_machine._CONNECT_S", 3.0)
    gate, box = servers
    path = lab(tmp_path, entry("gate", gate), dataclasses.replace(entry("box", box, jump="gate"), port=1))
    with pytest.raises(DeadlineExpired, match="did not answer in time"), connect(path, "box"):
        pass


def test_the_kernel_there_is_held_against_the_one_that_is_wanted(
    servers: tuple[Server, Server], tmp_path: Path
) -> None:
    with connect(lab(tmp_path, entry("box", servers[1])), "box") as machine:
        running = machine.kernel()
    name = os.uname()
    assert running == RunningKernel(name.release, name.version)
    assert running.is_build(f"{name.release} (somebody@somewhere) {name.version}")
    for banner in (
        f"{name.release}1 (somebody@somewhere) {name.version}",
        f"{name.release} (somebody@somewhere) {name.version} ",
        f"{name.release} (somebody@somewhere) #1 SMP Thu Jan 1 00:00:00 UTC 1970",
    ):
        with pytest.raises(InfraFault, match="box does not run k"):
            running.require("box", "k", banner)


def test_an_ordinary_user_is_root_by_sudo(servers: tuple[Server, Server]) -> None:
    for user, words in (("root", ()), ("tester", ("sudo", "-n"))):
        machine = SshMachine(dataclasses.replace(entry("box", servers[1]), user=user), None)  # type: ignore[arg-type]
        assert tuple(machine.sudo) == words


@pytest.mark.usefixtures("host_settings")
def test_a_reservation_over_ssh_ends_when_the_link_is_cut(servers: tuple[Server, Server], tmp_path: Path) -> None:
    """The server's process of this connection is killed: nobody says goodbye, and yet nothing stays there."""
    order = ReservedOrder(
        "ssh", images.agent_zipapp(Store()), silent, disk="/dev/null", state=str(tmp_path / "state"), compare=False
    )
    path = lab(tmp_path, entry("box", servers[1]))
    with pytest.raises(HostLost), connect(path, "box") as machine, reserved_host(machine, order) as host:
        folder, scope = Path(host.facts.folder), Path(host.facts.scope)
        assert folder.is_dir() and scope.is_dir()
        host.run(["sh", "-c", f"echo $$ > {scope}/cgroup.procs; kill -9 $PPID; sleep 600"], deadline_s=HANG_S)
    wait_until(lambda: not folder.exists() and not scope.exists(), "the machine's return")


@pytest.mark.usefixtures("host_settings")
def test_a_wanted_kernel_is_asked_for_again_when_the_machine_is_had(
    servers: tuple[Server, Server], tmp_path: Path
) -> None:
    order = ReservedOrder(
        "ssh", images.agent_zipapp(Store()), silent, disk="/dev/null", wanted=("k", "6.1.0 (a@b) #1 SMP"),
        state=str(tmp_path / "state"), compare=False,
    )  # fmt: skip
    with (
        pytest.raises(InfraFault, match="box does not run k"),
        connect(lab(tmp_path, entry("box", servers[1])), "box") as machine,
        reserved_host(machine, order),
    ):
        pass
    assert not [path for path in (tmp_path / "state").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    "number, command",
    [(MSG_CHANNEL_EOF, "exit 3"), (MSG_CHANNEL_WINDOW_ADJUST, "head -c 500000 /dev/zero; read line; exit 3")],
    ids=["eof", "window-adjust"],
)
def test_what_is_said_too_late_for_a_channel_does_not_end_the_connection(
    number: int, command: str, servers: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread is held up between making a message and sending it, until the server's CLOSE has been answered."""
    send, ours, late = Transport._send_user_message, threading.current_thread(), list[bool]()  # type: ignore[attr-defined]
    with connect(lab(tmp_path, entry("box", servers[1])), "box") as machine:
        stream = machine.open(["sh", "-c", command])
        assert isinstance(stream, SshStream)

        def held_up(transport: Transport, message: Any) -> None:
            if threading.current_thread() is ours and message.asbytes()[0] == number and not late:
                late.append(True)
                if number != MSG_CHANNEL_EOF:
                    stream.end_input()
                answered(transport, stream)
            send(transport, message)

        monkeypatch.setattr(Transport, "_send_user_message", held_up)
        deadline = Deadline.after(HANG_S, "the end")
        if number == MSG_CHANNEL_EOF:
            stream.end_input()
        while stream.read(deadline):
            pass
        assert stream.code(deadline) == 3
        stream.close()
        assert late
        assert machine.run(["echo", "there"], deadline_s=HANG_S).stdout == b"there\n"


def answered(transport: Transport, stream: SshStream) -> None:
    """The server has closed the channel, and paramiko's thread has said CLOSE: whatever it does is before the answer to
    a global request that comes behind."""
    wait_until(lambda: stream._channel.closed, "a channel that is closed")
    transport.global_request("answered@test", wait=True)


def test_an_input_is_ended(servers: tuple[Server, Server], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with connect(lab(tmp_path, entry("box", servers[1])), "box") as machine:
        machine.put(tmp_path / "file", str(tmp_path / "copy"), deadline_s=HANG_S)
    assert (tmp_path / "copy").read_bytes() == b"content"


class Hesitant(ServerInterface):
    """The first that asks to be let in is answered late, or left alone by ``gone``; the next at once."""

    asked = threading.Event()
    over = threading.Event()

    def __init__(self, gone: Callable[[], None] | None) -> None:
        self._gone = gone

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: PKey) -> int:
        if not self.asked.is_set():
            self.asked.set()
            ssh_link._TRY_S = HANG_S
            if self._gone is not None:
                self._gone()
            else:
                self.over.wait(HANG_S)
        return AUTH_SUCCESSFUL


@pytest.mark.parametrize("goes", [False, True], ids=["late", "gone"])
def test_a_server_that_does_not_answer_us_in_time_has_not_refused_us(
    goes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_link, "_TRY_S", 1.0)
    monkeypatch.setattr(Hesitant, "asked", threading.Event())
    monkeypatch.setattr(Hesitant, "over", threading.Event())
    keys = host_keys(Store(tmp_path))
    transports: list[Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    transport = Transport(listener.accept()[0])
                    transport.add_server_key(server_key)
                    transport.start_server(threading.Event(), Hesitant(transport.close if goes else None))
                    transports.append(transport)

        server_key = PKey.from_path(keys.client_private)
        public = f"{server_key.get_name()} {server_key.get_base64()}"
        server = Server(listener.getsockname()[1], public, keys.client_private)
        threading.Thread(target=serve, daemon=True).start()
        try:
            server.connect().close()
        finally:
            Hesitant.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for transport in transports:
                transport.close()
    assert Hesitant.asked.is_set() and len(transports) > 1
