# SPDX-License-Identifier: GPL-2.0-or-later
"""The server itself, with this test in the place of the kernel's nbd client; the kernel is in test_on_host.py."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent.gate import device, wire
from harness.agent.gate.disk import Disk
from harness.agent.gate.server import Server
from harness.agent.gate.wire import Command
from tests.unit.waiting import HANG_S

SIZE = 1 << 20


class Client:
    """Both peers of a server: the kernel (``disk``) and the agent (``control``)."""

    def __init__(self) -> None:
        self.disk, theirs = socket.socketpair()
        self.control, other = socket.socketpair()
        self.disk.settimeout(HANG_S)
        self.control.settimeout(HANG_S)
        self.thread = threading.Thread(target=Server(Disk(theirs, SIZE), other).run)
        self.thread.start()

    def send(self, command: Command, handle: int, offset: int, length: int, data: bytes = b"") -> None:
        self.disk.sendall(struct.pack(">IIQQI", 0x25609513, command, handle, offset, length) + data)

    def reply(self, length: int = 0) -> tuple[int, int, bytes]:
        magic, error, handle = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698
        return handle, error, self.take(length)

    def take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += self.disk.recv(length - len(data))
        return data

    def ask(self, do: str, **more: object) -> dict[str, object]:
        self.control.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
        answer: dict[str, object] = json.loads(self.control.makefile("rb").readline())
        return answer

    def arm(self, rule: str, trace: Path) -> None:
        self.ask("arm", rule=rule, order="given", tids=[812], pages={"8": 0x1208, "16": 0x1209}, errors=[0x1209],
                 after_s=0, ram_hva=-1, apic_ids=[], moved=False, trace=str(trace))  # fmt: skip


@pytest.fixture
def client() -> Iterator[Client]:
    found = Client()
    yield found
    found.send(Command.DISCONNECT, 0, 0, 0)
    found.thread.join(HANG_S)
    assert not found.thread.is_alive()


def test_what_was_written_is_read(client: Client) -> None:
    client.send(Command.WRITE, 1, 4096, 4096, b"x" * 4096)
    assert client.reply() == (1, 0, b"")
    client.send(Command.FLUSH, 2, 0, 0)
    assert client.reply() == (2, 0, b"")
    client.send(Command.READ, 3, 4096, 4096)
    assert client.reply(4096) == (3, 0, b"x" * 4096)


def test_held_until_the_trace_says_so(client: Client, tmp_path: Path) -> None:
    trace = tmp_path / "trace_pipe"
    trace.write_text("")
    client.arm("np", trace)
    client.send(Command.READ, 1, 4096, 4096)
    client.send(Command.READ, 2, 8192, 4096)
    held = 0
    while held < 2:
        held = int(str(client.ask("log")["held"]))
    head = "  CPU 0/KVM-812  [000] ..... "
    with trace.open("a") as file:
        file.write(f"{head}1.0: kvm_async_pf_not_present: token 0x1000 gva 0x1208000\n")
        file.write(f"{head}1.0: kvm_async_pf_not_present: token 0x2000 gva 0x1209000\n")
    assert client.reply(4096) == (1, 0, bytes(4096))
    assert client.reply() == (2, 5, b"")
    log = client.ask("log")["reads"]
    assert isinstance(log, list)
    assert [(entry["pages"], entry["why"], entry["error"]) for entry in log] == [
        ([0x1208], "announced", 0),
        ([0x1209], "announced", 5),
    ]


def hold_a_read(client: Client, tmp_path: Path) -> None:
    """One that only the plan's word lets come."""
    trace = tmp_path / "trace_pipe"
    trace.write_text("")
    client.arm("step", trace)
    client.send(Command.READ, 1, 4096, 4096)
    while client.ask("log")["held"] != 1:
        pass


def test_an_agent_that_is_gone_leaves_an_open_gate(client: Client, tmp_path: Path) -> None:
    hold_a_read(client, tmp_path)
    client.control.close()
    assert client.reply(4096) == (1, 0, bytes(4096))


@pytest.mark.parametrize("ends", [True, False])
def test_an_agent_that_is_gone_before_its_answer_leaves_an_open_gate(
    client: Client, tmp_path: Path, ends: bool
) -> None:
    """It was killed between a word and its answer: the server meets EPIPE, and the kernel still waits for a read."""
    hold_a_read(client, tmp_path)
    client.control.shutdown(socket.SHUT_RD)
    client.control.sendall(b'{"do": "log"}\n' * (1 if ends else 2))
    if ends:
        client.control.close()
    assert client.reply(4096) == (1, 0, bytes(4096))
    client.send(Command.READ, 2, 0, 4096)
    assert client.reply(4096) == (2, 0, bytes(4096))


def test_a_word_that_is_none(client: Client) -> None:
    assert "error" in client.ask("fly")


@given(st.sampled_from(list(Command)), st.integers(0, 2**64 - 1), st.integers(0, 2**63), st.integers(0, 2**32 - 1))
def test_requests(command: Command, handle: int, offset: int, length: int) -> None:
    data = struct.pack(">IIQQI", 0x25609513, command | 1 << 16, handle, offset, length)
    assert wire.decode_request(data) == wire.Request(command, handle, offset, length)
    assert len(data) == wire.REQUEST_BYTES


def test_a_stream_out_of_step() -> None:
    with pytest.raises(ValueError, match="magic"):
        wire.decode_request(bytes(wire.REQUEST_BYTES))


def test_the_trace_is_looked_at_up_to_now_even_if_it_never_ends(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vCPUs that spin make lines faster than they are read."""
    switch = "prev_comm=CPU 0/KVM prev_pid=812 prev_prio=120 prev_state=S ==> next_comm=x next_pid=9 next_prio=120"
    read, looks = os.read, []

    def endless(fd: int, size: int) -> bytes:
        looks.append(fd)
        now = time.monotonic()
        return (
            f"  CPU 0/KVM-812     [000] d..2. {now:.6f}: sched_switch: {switch}\n".encode() if len(looks) < 500 else b""
        )

    (tmp_path / "trace_pipe").write_text("")
    monkeypatch.setattr(os, "read", endless)
    client.arm("np", tmp_path / "trace_pipe")
    assert "reads" in client.ask("log")
    monkeypatch.setattr(os, "read", read)
    assert len(looks) < 100


def test_a_server_whose_agent_was_killed_before_it_noted_it_connects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[int] = []
    monkeypatch.setattr(device.nbd, "connect", lambda index, *_rest: connected.append(index))
    ours, theirs = socket.socketpair()
    ours.close()
    device._serve(0, theirs, 1 << 20)
    assert connected == []


def test_finds_where_a_page_was_written_last(client: Client) -> None:
    first, second = ((n + 1).to_bytes(8, "little") + bytes([n + 1]) * 4088 for n in range(2))
    for handle, (offset, data) in enumerate([(8192, first + second), (40960, first), (4096, bytes(4096))]):
        client.send(Command.WRITE, handle, offset, len(data), data)
        assert client.reply() == (handle, 0, b"")
    found = client.ask("find", words=[1, 2, 3])["found"]
    assert isinstance(found, list)
    assert sorted(found) == [[1, 40960], [2, 12288]]
