# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP with a real QEMU under TCG."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from harness.agent.guest import qemu
from harness.agent.guest.qemu import Guest, QemuDied, start_guest
from harness.agent.pages.guest_memory import ProcessMemory
from harness.errors import InfraFault, Unsupported
from tests.unit.agent.conftest import needs_qemu, root_only
from tests.unit.waiting import HANG_S

pytestmark = [needs_qemu, root_only]


def with_guest(
    tmp_path: Path, act: Callable[[Guest], Awaitable[None]], *extra: str, keep_fds: tuple[int, ...] = ()
) -> None:
    """A QEMU that stands still, with 64 MiB, and ``act`` on it."""

    def argv(fd: int) -> list[str]:
        return [
            "qemu-system-x86_64", "-M", "microvm,memory-backend=ram", "-accel", "tcg", "-m", "64M", "-nodefaults",
            "-object", "memory-backend-ram,id=ram,size=64M", "-display", "none", "-S", "-smp", "2",
            "-chardev", f"socket,id=qmp,fd={fd}", "-mon", "chardev=qmp,mode=control", *extra,
        ]  # fmt: skip

    async def run() -> None:
        paths = (str(tmp_path / "qmp.jsonl"), str(tmp_path / "qemu.txt"))
        async with start_guest(argv, cgroup="", qmp_log=paths[0], stderr_path=paths[1], keep_fds=keep_fds) as guest:
            await act(guest)
        assert not guest.alive

    asyncio.run(run())


def test_commands_and_log(tmp_path: Path) -> None:
    async def act(guest: Guest) -> None:
        assert len(set(await guest.vcpu_threads())) == 2
        assert (await guest.version()).count(".") == 2
        with ProcessMemory(guest.pid) as memory:
            base = await guest.ram_base()
            memory.write(base + 0x1000000, b"guest")
        said = await guest.execute("human-monitor-command", {"command-line": "xp /5c 0x1000000"})
        assert "'g' 'u' 'e' 's' 't'" in str(said)
        await guest.cont()
        await guest.stop()

    with_guest(tmp_path, act)
    log = [json.loads(line) for line in (tmp_path / "qmp.jsonl").read_text().splitlines()]
    assert {m["dir"] for m in log} == {"in", "out"}
    assert "stop" in [m["message"].get("execute") for m in log]
    assert "STOP" in [m["message"].get("event") for m in log]
    assert [m["t"] for m in log] == sorted(m["t"] for m in log)


def test_a_loop_of_commands_ends_whenever_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at the moment at which the answer to a command is there, which QEMU cannot be made to hit: it is at once."""

    async def answered(*_: object) -> None:
        await asyncio.sleep(0)

    async def act(guest: Guest) -> None:
        monkeypatch.setattr(guest._qmp, "execute", answered)

        async def loop() -> None:
            while True:
                await guest.sync()

        for turns in range(20):
            looping = asyncio.ensure_future(loop())
            for _ in range(turns):
                await asyncio.sleep(0)
            looping.cancel()
            await asyncio.wait([looping], timeout=HANG_S)
            assert looping.cancelled(), f"cancelled after {turns} turns of the event loop, it went on"
        monkeypatch.undo()

    with_guest(tmp_path, act)


def test_who_is_cancelled_goes_with_the_answer(tmp_path: Path) -> None:
    """QEMU is slow, as on a busy machine; what it was asked it does all the same."""

    async def act(guest: Guest) -> None:
        os.kill(guest.pid, signal.SIGSTOP)
        asking = asyncio.ensure_future(guest.sync())
        await asyncio.sleep(0.05)
        asking.cancel()
        asyncio.get_running_loop().call_later(0.2, os.kill, guest.pid, signal.SIGCONT)
        with pytest.raises(asyncio.CancelledError):
            await asking
        log = [json.loads(line) for line in (tmp_path / "qmp.jsonl").read_text().splitlines()]
        asked = [m["message"]["id"] for m in log if m["dir"] == "out" and "id" in m["message"]]
        told = [m["message"]["id"] for m in log if m["dir"] == "in" and "id" in m["message"]]
        assert asked and asked == told

    with_guest(tmp_path, act)


@pytest.mark.parametrize(
    ("cpu", "named"),
    [("max,-kvm-nothing", r"kvm-nothing' not found"), ("maxx", "model 'maxx'"), ("max,kvm=maybe", "'on' or 'off'")],
)
def test_a_cpu_that_qemu_does_not_know_is_unsupported(tmp_path: Path, cpu: str, named: str) -> None:
    async def act(guest: Guest) -> None:
        raise AssertionError("it has started")

    with pytest.raises(Unsupported, match=f"does not know what guest.cpu names: .*{named}"):
        with_guest(tmp_path, act, "-cpu", cpu)


def test_a_refused_command(tmp_path: Path) -> None:
    async def act(guest: Guest) -> None:
        with pytest.raises(InfraFault, match="no-such-command"):
            await guest.execute("no-such-command")
        assert guest.alive

    with_guest(tmp_path, act)


def test_killed_under_a_command(tmp_path: Path) -> None:
    async def act(guest: Guest) -> None:
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(QemuDied, match="-9"):
            for _ in range(100):
                await guest.execute("query-status")

    with_guest(tmp_path, act)


def test_bad_command_line_tells_why(tmp_path: Path) -> None:
    async def act(guest: Guest) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(QemuDied, match="nonsense"):
        with_guest(tmp_path, act, "-device", "nonsense")


def test_no_qemu(tmp_path: Path) -> None:
    async def run() -> None:
        log, err = str(tmp_path / "q"), str(tmp_path / "e")
        async with start_guest(lambda fd: ["/nowhere/qemu"], cgroup="", qmp_log=log, stderr_path=err):
            pass

    with pytest.raises(InfraFault, match="/nowhere/qemu"):
        asyncio.run(run())


def test_one_that_does_not_answer_is_late_and_not_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "QMP_SECONDS", 0.3)
    monkeypatch.setattr(qemu, "_NOTICED_SECONDS", 0.1)

    async def run() -> None:
        log, err = str(tmp_path / "q"), str(tmp_path / "e")
        async with start_guest(lambda fd: ["sleep", "60"], cgroup="", qmp_log=log, stderr_path=err):
            pass

    with pytest.raises(InfraFault, match=r"no greeting within 0\.3 s") as told:
        asyncio.run(run())
    assert not isinstance(told.value, QemuDied)


class _SixSlots(Guest):
    """A q35 of two sockets with three cores each: CPU 3 is away, 4 and 5 never were."""

    def __init__(self) -> None:
        self.added: Mapping[str, object] = {}

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        if command == "device_add" and arguments is not None:
            self.added = arguments
        if command != "query-hotpluggable-cpus":
            return [{"cpu-index": index, "thread-id": 100 + index} for index in range(4)]
        places = [{"socket-id": n // 3, "core-id": n % 3, "thread-id": 0} for n in reversed(range(6))]
        there = ({"qom-path": "/machine/x"} if n < 3 else {} for n in reversed(range(6)))
        return [{"type": "cpu", "props": props} | path for props, path in zip(places, there, strict=True)]


def test_a_cpu_is_plugged_into_the_slot_of_its_number() -> None:
    guest = _SixSlots()
    assert asyncio.run(guest.plug(3)) == 103
    assert guest.added == {"driver": "cpu", "id": "vcpu3", "socket-id": 1, "core-id": 0, "thread-id": 0}
    for taken in (2, 6):
        with pytest.raises(InfraFault, match=f"no free slot for CPU {taken}"):
            asyncio.run(guest.plug(taken))


def test_a_machine_without_slots_says_so(tmp_path: Path) -> None:
    """microvm has no hotplug of CPUs; on a q35 all are there.  TCG has no room for the thread of a new one."""

    async def act(guest: Guest) -> None:
        with pytest.raises(InfraFault, match=r"query-hotpluggable-cpus.*not enabled"):
            await guest.plug(1)

    with_guest(tmp_path, act)

    async def act_on_q35(guest: Guest) -> None:
        with pytest.raises(InfraFault, match="no free slot for CPU 1"):
            await guest.plug(1)

    with_guest(tmp_path, act_on_q35, "-M", "q35,memory-backend=ram")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("warning: Number of SMP cpus requested (3) exceeds the recommended cpus\n", ""),
        ("KVM internal error. Suberror: 1\nextra data[0]: 0x0\n", "KVM internal error. Suberror: 1"),
        ("KVM: entry failed, hardware error 0x0\n", "KVM: entry failed, hardware error 0x0"),
        ("KVM: unknown exit reason 99\n", "KVM: unknown exit reason 99"),
    ],
)
def test_a_run_that_failed_for_good(said: str, found: str, tmp_path: Path) -> None:
    """As QEMU writes it, which stops the machine then and answers QMP as before."""

    async def act(guest: Guest) -> None:
        assert guest.failed_run() == ""
        with (tmp_path / "qemu.txt").open("a") as file:
            file.write(said)
        assert guest.failed_run() == found == guest.failed_run()

    with_guest(tmp_path, act)
