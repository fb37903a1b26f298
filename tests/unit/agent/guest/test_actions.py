# SPDX-License-Identifier: GPL-2.0-or-later
"""What timed actions take of the program's time, and what becomes of a word that QEMU does not answer."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.agent.guest import actions
from harness.agent.guest.actions import Actor, Standing, WaitedInVain, change_mm, vcpu_asleep, vcpu_deaf
from harness.contract.plan import HostAction, HostWord
from harness.errors import DeadlineExpired, InfraFault


@pytest.mark.parametrize(
    ("asleep", "deaf", "raised"),
    [(True, False, WaitedInVain), (False, True, WaitedInVain), (False, False, DeadlineExpired)],
)
def test_a_word_waits_in_vain_where_a_vcpu_sleeps_for_a_page_or_heeds_no_signal(
    monkeypatch: pytest.MonkeyPatch, asleep: bool, deaf: bool, raised: type[DeadlineExpired]
) -> None:
    """Its page is held, and QEMU waits for its thread: the plan's affair, or the kernel's, and not ours."""

    async def sync() -> None:
        raise DeadlineExpired("QMP human-monitor-command: no answer within 60 s")

    monkeypatch.setattr(actions, "vcpu_asleep", lambda _pid: asleep)
    monkeypatch.setattr(actions, "vcpu_deaf", lambda _pid: deaf)
    guest = SimpleNamespace(sync=sync, pid=1)
    capture = SimpleNamespace(step=lambda *_: None)
    actor = Actor(*cast("tuple[Any, ...]", (None, capture, guest, None, None, 0)))
    with pytest.raises(DeadlineExpired) as caught:
        asyncio.run(actor.perform((HostAction(HostWord.SYNC, 1),), host=0))
    assert type(caught.value) is raised and "no answer within 60 s" in str(caught.value)


@pytest.mark.parametrize(("said", "raised"), [("error: kvm run failed Bad address", WaitedInVain), ("", InfraFault)])
def test_a_word_that_a_dead_machine_refuses_is_no_fault_of_ours(said: str, raised: type[InfraFault]) -> None:
    """KVM_RUN of a vCPU has failed, and QEMU refuses a cont until somebody resets the machine."""

    async def cont() -> None:
        raise InfraFault("QMP cont: Resetting the Virtual Machine is required")

    guest = SimpleNamespace(cont=cont, pid=1, failed_run=lambda: said)
    capture = SimpleNamespace(step=lambda *_: None)
    actor = Actor(*cast("tuple[Any, ...]", (None, capture, guest, None, None, 0)))
    with pytest.raises(InfraFault, match="Resetting the Virtual Machine") as caught:
        asyncio.run(actor.perform((HostAction(HostWord.CONT, 0),), host=0))
    assert type(caught.value) is raised and said in str(caught.value)


@pytest.mark.parametrize(("held", "raised"), [(2, WaitedInVain), (0, DeadlineExpired)])
def test_a_word_waits_in_vain_where_qemu_itself_waits_for_who_reads(
    monkeypatch: pytest.MonkeyPatch, held: int, raised: type[DeadlineExpired]
) -> None:
    """It maps memory for a coroutine, and a worker that reads a page keeps mmap_lock.  Without a read that is held it
    is a matter of the machine's."""

    async def stop() -> None:
        raise DeadlineExpired("QMP stop: no answer within 60 s")

    monkeypatch.setattr(actions, "read_text", lambda path: f"{Path(path).parent.name} (qemu-system-x86) D 1 2 3\n")
    monkeypatch.setattr(actions, "vcpu_deaf", lambda _pid: False)
    guest, device = (
        SimpleNamespace(stop=stop, pid=os.getpid()),
        SimpleNamespace(gate=SimpleNamespace(held=lambda: held)),
    )
    capture = SimpleNamespace(step=lambda *_: None)
    actor = Actor(*cast("tuple[Any, ...]", (None, capture, guest, None, device, 0)))
    with pytest.raises(DeadlineExpired) as caught:
        asyncio.run(actor.perform((HostAction(HostWord.STOP, 0),), host=0))
    assert type(caught.value) is raised
    assert ("or for mmap_lock" in str(caught.value)) is (raised is WaitedInVain)


def test_a_timed_stop_that_is_not_answered_keeps_no_deadline_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list goes no further, so that nobody would let the machine go on."""

    async def stop() -> None:
        raise DeadlineExpired("QMP stop: no answer within 60 s")

    monkeypatch.setattr(actions, "vcpu_asleep", lambda _pid: True)
    guest = SimpleNamespace(stop=stop, pid=1)
    capture = SimpleNamespace(step=lambda *_: None)
    actor = Actor(*cast("tuple[Any, ...]", (None, capture, guest, None, None, 0)))
    with pytest.raises(WaitedInVain):
        asyncio.run(actor.perform((HostAction(HostWord.STOP, 0),), timed=0))
    assert actor.standing.since is None


def test_lists_that_run_beside_each_other_set_the_device_one_after_the_other() -> None:
    """A thaw goes on with the delay that the last word has set, not with what was true when its turn was not yet."""
    said: list[tuple[str, int]] = []

    def slowly(word: str, read_ms: int) -> None:
        said.append((word, read_ms))
        time.sleep(0.02)
        said.append((word, read_ms))

    device = SimpleNamespace(
        holds=True,
        hold=lambda _: slowly("freeze", 0),
        go_on=lambda _, read_ms: slowly("thaw", read_ms),
        set_delay=lambda _, read_ms: slowly("delay", read_ms),
    )
    capture = SimpleNamespace(step=lambda *_: None)

    async def both() -> None:
        actor = Actor(*cast("tuple[Any, ...]", (None, capture, None, None, device, 40)))
        one = actor.perform((HostAction(HostWord.FREEZE, 0), HostAction(HostWord.THAW, 0)), timed=0)
        await asyncio.gather(one, actor.perform((HostAction(HostWord.DELAY, 5),), timed=1))

    asyncio.run(both())
    assert said == [("freeze", 0)] * 2 + [("delay", 5)] * 2 + [("thaw", 5)] * 2


@pytest.mark.parametrize(
    ("name", "state", "asleep"), [("CPU 11/KVM", "D", True), ("CPU 0/KVM", "S", False), ("worker", "D", False)]
)
def test_a_thread_that_sleeps_for_a_page_is_known_by_name_and_state(
    monkeypatch: pytest.MonkeyPatch, name: str, state: str, asleep: bool
) -> None:
    monkeypatch.setattr(actions, "read_text", lambda path: f"{Path(path).parent.name} ({name}) {state} 1 2 3\n")
    assert vcpu_asleep(os.getpid()) is asleep
    assert not vcpu_asleep(2**22 + 1)


@pytest.mark.parametrize(
    ("state", "signals", "ran", "deaf"),
    [
        ("R", ("200", "200"), (1, 2), True),
        ("S", ("200", "200"), (1, 1), True),
        ("R", ("200", "200"), (1, 1), False),  # no processor was given to it
        ("R", ("200", "0"), (1, 2), False),
        ("S", ("0", "0"), (1, 1), False),
    ],
)
def test_a_vcpu_s_thread_that_runs_or_sleeps_on_with_a_signal_pending(
    monkeypatch: pytest.MonkeyPatch, state: str, signals: tuple[str, str], ran: tuple[int, int], deaf: bool
) -> None:
    looks = {"status": iter(signals), "schedstat": iter(ran)}

    def read(path: str) -> str:
        name = Path(path).name
        if name == "stat":
            return f"1 (CPU 0/KVM) {state} 1"
        return f"Name:\tCPU\nSigPnd:\t{next(looks[name])}\n" if name == "status" else f"{next(looks[name])} 5 6"

    monkeypatch.setattr(actions, "read_text", read)
    monkeypatch.setattr(actions, "_HEED_SECONDS", 0.0)
    monkeypatch.setattr(actions.os, "listdir", lambda _path: ["7"])
    assert vcpu_deaf(1) is deaf


def test_the_time_between_stop_and_cont_is_none_of_the_programs() -> None:
    standing = Standing()
    assert standing.seconds(5.0) == 0.0
    standing.begin(10.0)
    standing.begin(11.0)  # another list stops what stands
    assert standing.seconds(12.5) == 2.5
    standing.end(14.0)
    standing.end(15.0)  # of that other list
    assert standing.seconds(20.0) == 4.0
    standing.begin(21.0)
    standing.end(22.0)
    assert standing.seconds(30.0) == 5.0


def test_an_address_space_is_changed_at_once_or_somebody_keeps_its_lock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change_mm(os.getpid())
    monkeypatch.setattr(actions, "_CLEAR_REFS", str(tmp_path / "missing" / "clear_refs"))
    with pytest.raises(InfraFault, match="missing"):
        change_mm(os.getpid())  # a word that did nothing has not been said
    pipe = tmp_path / "clear_refs"
    os.mkfifo(pipe)  # who opens it sleeps until somebody reads
    monkeypatch.setattr(actions, "_CHANGE_MM_SECONDS", 0.05)
    monkeypatch.setattr(actions, "_CLEAR_REFS", str(pipe))
    with pytest.raises(WaitedInVain, match="mmap_lock"):
        change_mm(os.getpid())
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
