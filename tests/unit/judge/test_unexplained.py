# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads of the pages' device by a thread that is neither vCPU nor kworker: as many as the plan's lock-reads make."""

from __future__ import annotations

from dataclasses import replace
from errno import EFAULT, EINTR
from pathlib import Path

import pytest

from harness.judge.align import Alignment
from harness.judge.episodes import Episode
from harness.judge.match import View
from harness.judge.unexplained import KVM_EXIT_INTR, KVM_EXIT_IRQ_WINDOW_OPEN, unexplained
from harness.model.events import Event, Kind
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome
from harness.prediction import predict
from harness.scenario.build import build_plan
from harness.scenario.load import load_text

SCENARIOS = Path(__file__).parents[2] / "scenarios"
DEVICE = 253 << 20


@pytest.mark.parametrize(("scenario", "reads", "wrong"), [("S38", 3, 0), ("S38", 4, 1), ("S36", 0, 0), ("S36", 1, 1)])
def test_only_the_planned_reads_of_others_are_explained(scenario: str, reads: int, wrong: int) -> None:
    path = SCENARIOS / f"{scenario}.toml"
    plan = build_plan(load_text(path.name, path.read_text())[0], nonce=1)
    events = tuple(Event(Kind.BIO, tid=77, dev=DEVICE, data=8, flag=True, line=n + 1) for n in range(reads))
    view = View(plan, Alignment((), (), (), ()), events, DEVICE, probed=True)
    found = list(unexplained(view, predict(plan, find_kernel("nowait-6.1"))))
    assert [f.line for f in found] == list(range(reads, reads - wrong, -1))
    assert all("neither vCPU nor kworker" in f.message for f in found)


@pytest.mark.parametrize(("scenario", "wrong"), [("S141", []), ("S36", [5, 6, 7, 11])])
def test_what_kvm_leaves_to_a_vmm_with_the_lapic(scenario: str, wrong: list[int]) -> None:
    path = SCENARIOS / f"{scenario}.toml"
    plan = build_plan(load_text(path.name, path.read_text())[0], nonce=1)
    events = tuple(Event(Kind.USER_EXIT, 0, value=reason, line=reason) for reason in (5, 6, 7, 10, 11))
    view = View(plan, Alignment((), (), (), ()), events, DEVICE, probed=True)
    assert [f.line for f in unexplained(view, predict(plan, find_kernel("nowait-6.1")))] == wrong


@pytest.mark.parametrize(("machine", "irqchip", "wrong"), [("q35", "off", 0), ("microvm", "off", 1), ("q35", "on", 1)])
def test_the_pit_of_a_pc_interrupts_a_vmm_that_has_the_lapic(machine: str, irqchip: str, wrong: int) -> None:
    """Seen on five kernels: `restart` at each tick of the PIT, which firmware had left running."""
    text = f"""
id = "A"
title = "a PC without a LAPIC in KVM"
[guest]
machine = "{machine}"
irqchip = "{irqchip}"
cpu = "host,-kvm-asyncpf-int"
[pages.f]
groups = 1
start = "swapped"
[[steps]]
touch = "f"
"""
    plan = build_plan(load_text("a.toml", text)[0], nonce=1)
    events = (Event(Kind.USER_EXIT, 0, value=EINTR, line=1),)
    view = View(plan, Alignment((), (), (), ()), events, DEVICE, probed=True)
    assert len(list(unexplained(view, predict(plan, find_kernel("nowait-6.1"))))) == wrong


@pytest.mark.parametrize(
    ("machine", "irqchip", "again", "wrong"),
    [("q35", "split", True, 0), ("q35", "on", True, 1), ("microvm", "split", True, 1), ("q35", "split", False, 1)],
)
def test_a_vmm_that_has_the_pic_is_told_when_firmware_can_take_an_interrupt(
    machine: str, irqchip: str, again: bool, wrong: int
) -> None:
    text = f"""
id = "A"
title = "a PC boots again"
[guest]
machine = "{machine}"
irqchip = "{irqchip}"
[pages.f]
groups = 1
start = "swapped"
[[steps]]
touch = "f[0]"
[[steps]]
{"reset" if again else "pause"} = true
"""
    plan = build_plan(load_text("A.toml", text)[0], nonce=1)
    events = (Event(Kind.USER_EXIT, 0, value=KVM_EXIT_IRQ_WINDOW_OPEN, line=1),)
    view = View(plan, Alignment((), (), (), ()), events, DEVICE, probed=True)
    assert len(list(unexplained(view, predict(plan, find_kernel("nowait-6.1"))))) == wrong


def test_behind_a_kvm_run_that_fails_the_vmm_stops_the_others() -> None:
    text = """
id = "A"
title = "a read fails"
[guest]
vcpus = 2
[swap]
error = ["f[0]"]
[pages.f]
groups = 2
start = "swapped"
[[steps]]
touch = "f[0]"
interrupts = false
"""
    plan = build_plan(load_text("A.toml", text)[0], nonce=1)
    events = tuple(Event(Kind.USER_EXIT, v, value=n, line=at) for at, (v, n) in enumerate(((1, 4), (0, 14), (1, 4)), 1))
    view = View(plan, Alignment((), (), (), ()), events, DEVICE, probed=True)
    assert [f.line for f in unexplained(view, predict(plan, find_kernel("nowait-6.1")))] == [1]


@pytest.mark.parametrize("later", [(Outcome.ERROR,), None])
def test_a_kvm_run_may_fail_at_a_later_fault_of_an_access(later: tuple[Outcome, ...] | None) -> None:
    """A stop ended the first wait for a page (6.2 on): the second fault of the access finds that it cannot be read."""
    text = """
id = "A"
title = "a read fails"
[pages.f]
groups = 1
start = "swapped"
[[steps]]
touch = "f[0]"
interrupts = false
"""
    plan = build_plan(load_text("A.toml", text)[0], nonce=1)
    before = predict(plan, find_kernel("nowait-7.3"))
    item = replace(
        before.items[0], outcome=Outcome.SYNC, faults=Count.exactly(2) if later else Count(1, 2), later=later
    )
    view = View(plan, Alignment((), (), (), ()), (Event(Kind.USER_EXIT, 0, value=EFAULT, line=1),), DEVICE, probed=True)
    found = list(unexplained(view, replace(before, items=(item,))))
    assert [f.line for f in found] == ([] if later else [1])


KICK = (1000, 2000)
"""When the agent was at something that takes a signal to each vCPU thread."""


@pytest.mark.parametrize(
    ("exits", "wrong"),
    [
        ([(1500, EINTR), (1600, EINTR), (2500, EINTR)], []),  # the signal was sent, the thread had not run since
        ([(2500, EINTR), (2600, EINTR)], [2]),
        ([(500, EINTR)], [1]),
        ([(1500, 17)], [1]),  # KVM_EXIT_INTERNAL_ERROR
        ([(1500, KVM_EXIT_INTR)], []),
    ],
)
def test_a_signal_explains_only_what_it_does(exits: list[tuple[int, int]], wrong: list[int]) -> None:
    """One host word that interrupts the vCPUs switched off all findings about exits to user space before."""
    path = SCENARIOS / "S36.toml"
    plan = build_plan(load_text(path.name, path.read_text())[0], nonce=1)
    events = tuple(Event(Kind.USER_EXIT, 0, t_ns=t, value=n, line=at) for at, (t, n) in enumerate(exits, 1))
    view = View(plan, Alignment((), (), (), ()), events, DEVICE, probed=True, kicks=(KICK,))
    assert [f.line for f in unexplained(view, predict(plan, find_kernel("nowait-6.1")))] == wrong


def test_a_reset_explains_the_exits_of_firmware_only() -> None:
    text = """
id = "A"
title = "the guest resets the machine"
[pages.f]
groups = 2
start = "swapped"
[[steps]]
touch = "f[0]"
[[steps]]
reset = true
"""
    plan = build_plan(load_text("A.toml", text)[0], nonce=1)
    exits = (2, 6, 8, 11, 12, EINTR, 17, 9)
    events = tuple(Event(Kind.USER_EXIT, 0, value=n, line=n) for n in exits)
    view = View(plan, Alignment((), (), (), ()), events, DEVICE, probed=True)
    assert [f.line for f in unexplained(view, predict(plan, find_kernel("nowait-6.1")))] == [17, 9]


def test_an_nmi_that_the_program_sends_and_an_interrupt_in_service_are_accounted_for() -> None:
    text = """
id = "A"
title = "events of the vCPU's own"
[memory]
backing = "file"
[pages.f]
groups = 1
start = "dropped"
[[steps]]
touch = "f[0]"
access = "write"
cpl = 0
by = "BY"
[[steps]]
pause = true
in_service = true
interrupts = false
"""
    accepted = (
        Event(Kind.ACC, 0, value=0, line=1, text="kvm_apic_accept_irq: apicid 0 vec 0 (NMI|edge)"),
        Event(Kind.ACC, 0, value=0xFE, line=2),
        Event(Kind.ACC, 0, value=0x22, line=3),
    )
    for by, wrong in (("nmi", [3]), ("exception", [1, 3])):
        plan = build_plan(load_text("A.toml", text.replace("BY", by))[0], nonce=1)
        view = View(plan, Alignment((), (), (), ()), accepted, DEVICE, probed=True)
        assert [f.line for f in unexplained(view, predict(plan, find_kernel("nowait-6.1")))] == wrong


@pytest.mark.parametrize("gpa", [0x800, 0x5000])
def test_page_0_is_a_page_of_the_guests_own_as_all_others(gpa: int) -> None:
    """S36's shared area lies in no page of the pool."""
    path = SCENARIOS / "S36.toml"
    plan = build_plan(load_text(path.name, path.read_text())[0], nonce=1)
    events = [Event(Kind.NP, 0, token=0x1000, gpa=gpa, line=2)]
    own = Episode(0, Event(Kind.PF, 0, gpa=gpa, line=1), events)
    view = View(plan, Alignment((), (), (own,), ()), (), DEVICE, probed=False)
    found = unexplained(view, predict(plan, find_kernel("nowait-6.1")))
    assert [f.about for f in found] == ["own page"]
