# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace lines as 5.10 and 6.1 print them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from harness.agent.gate.watch import Sight, What, filters, read_line
from harness.agent.host.tracing import Tracing, Watch
from tests.unit.agent.conftest import root_only
from tests.unit.waiting import wait_until

HEAD = "     CPU 0/KVM-812     [001] d.... "


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "  5.000001: kvm_page_fault: vcpu 0 rip 0x100f00 address 0x0000000001208000 error_code 0x100000014",
            [Sight(What.FAULT, 812, 5.000001, page=0x1208)],
        ),
        ("  5.1: kvm_page_fault: address 1208000 error_code 14", [Sight(What.FAULT, 812, 5.1, page=0x1208)]),
        (
            "  5.2: kvm_async_pf_not_present: token 0x1000 gva 0x1208000",
            [Sight(What.ANNOUNCED, 812, 5.2, page=0x1208)],
        ),
        ("  5.3: kvm_async_pf_ready: token 0x1000 gva 0x1208000", [Sight(What.READY, 812, 5.3, page=0x1208)]),
        ("  5.3: kvm_async_pf_ready: token 0xffffffff gva 0", []),
        ("  5.4: kvm_async_pf_repeated_fault: gva = 0x1208000, gfn = 0x1208", [Sight(What.REPEATED, 812, 5.4)]),
        ("  5.4: kvm_async_pf_doublefault: gva = 0x1208000, gfn = 0x1208", [Sight(What.REPEATED, 812, 5.4)]),
        ("  5.5: block_bio_queue: 43,0 R 128 + 8 [CPU 0/KVM]", [Sight(What.READ, 812, 5.5, sector=128)]),
        ("  5.5: block_bio_queue: 43,0 RA 1256 + 256 [CPU 0/KVM]", [Sight(What.READ, 812, 5.5, sector=1256)]),
        ("  5.5: block_bio_queue: 43,0 WS 128 + 8 [CPU 0/KVM]", []),
        ("  5.5: kvm_msr: msr_write 4b564d02 = 0x801000", [Sight(What.DISABLED, 812, 5.5)]),
        ("  5.5: kvm_msr: msr_write 4b564d02 = 0x801001", [Sight(What.DISABLED, 812, 5.5)]),
        ("  5.5: kvm_msr: msr_write 4b564d02 = 0x801009", [Sight(What.ENABLED, 812, 5.5)]),
        *(
            (f"  5.5: kvm_exit: {text}", [Sight(What.CR0, 812, 5.5)])
            for text in (
                "vcpu 1 reason cr0_sel_write rip 0x1011da info1 0x0000000000000000 info2 0x0000000000000000 intr_info"
                " 0x00000000 error_code 0x00000000",
                "reason write_cr0 rip 0x1011da info1 0x8000000000000000 info2 0x0000000000000000 intr_info 0x00000000"
                " error_code 0x00000000",
                "vcpu 1 reason CR_ACCESS rip 0x1011da info1 0x0000000000000300 info2 0x0000000000000000 intr_info"
                " 0x00000000 error_code 0x00000000",
            )
        ),
        (
            "  5.5: kvm_exit: vcpu 1 reason CR_ACCESS rip 0x1011da info1 0x0000000000000103 info2 0x0000000000000000"
            " intr_info 0x00000000 error_code 0x00000000",
            [],
        ),
        ("  5.5: kvm_apic_accept_irq: apicid 1c vec 0 (INIT|edge)", [Sight(What.INIT, 812, 5.5, apic=0x1C)]),
        ("  5.5: kvm_apic_accept_irq: apicid 1 vec 243 (Fixed|edge)", []),
        ("  5.5: kvm_msr: msr_write 4b564d02 = 0x801010 (#GP)", []),
        ("  5.5: kvm_msr: msr_read 4b564d02 = 0x0", []),
        ("  5.5: kvm_msr: msr_write 4b564d07 = 0x0", []),
        (
            "  5.6: sched_switch: prev_comm=CPU 0/KVM prev_pid=812 prev_prio=120 prev_state=D ==> "
            "next_comm=swapper/1 next_pid=0 next_prio=120",
            [Sight(What.OUT, 812, 5.6)],
        ),
        (
            "  5.7: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> "
            "next_comm=CPU 0/KVM next_pid=812 next_prio=120",
            [],
        ),
        (
            "  5.7: sched_switch: prev_comm=CPU 0/KVM prev_pid=812 prev_prio=120 prev_state=R+ ==> "
            "next_comm=CPU 1/KVM next_pid=813 next_prio=120",
            [],
        ),
        ("  5.8: sched_wakeup: comm=CPU 1/KVM pid=813 prio=120 target_cpu=002", [Sight(What.WOKEN, 813, 5.8)]),
        (
            "  5.8: sched_wakeup: comm=CPU 1/KVM pid=813 prio=120 success=1 target_cpu=002",
            [Sight(What.WOKEN, 813, 5.8)],
        ),
    ],
)
def test_lines(text: str, seen: list[Sight]) -> None:
    assert read_line(HEAD + text) == seen


@pytest.mark.parametrize("line", ["", "# tracer: nop", "CPU:1 [LOST 12 EVENTS]", HEAD + " 5.0: kvm_entry: vcpu 0"])
def test_what_does_not_concern_the_gate(line: str) -> None:
    assert read_line(line) == []


_SPINS = "while True: pass"
_SLEEPS = "import time\nwhile True: time.sleep(0.001)"


@root_only
def test_a_thread_that_is_only_preempted_makes_no_line(instance: Tracing) -> None:
    """Five vCPUs that spun on two processors made more lines than the gate could read: reads came seconds late to it,
    and one was let go after 20 s because what it waited for had not been seen."""
    cpu = next(iter(os.sched_getaffinity(0)))
    run = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\n"
    children = [subprocess.Popen([sys.executable, "-c", run + what]) for what in (_SPINS, _SPINS, _SLEEPS)]
    try:
        watch = Watch(instance.path, instance.events)
        watch.start(filters([child.pid for child in children], None))
        before, lines = _preempted(children), list[str]()

        def seen() -> bool:
            with open(f"{instance.path}/trace", encoding="utf-8") as trace:
                lines[:] = [line for line in trace if not line.startswith("#")]
            return len(lines) >= 20 and _preempted(children) - before >= 20

        wait_until(seen, "20 preemptions and 20 sleeps")
        watch.stop()
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert [line for line in lines if not read_line(line)] == []


def _preempted(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """How often processes had to leave their CPU to others."""
    found = 0
    for child in children:
        with open(f"/proc/{child.pid}/status", encoding="ascii") as status:
            found += next(int(line.split()[1]) for line in status if line.startswith("nonvoluntary_ctxt_switches"))
    return found
