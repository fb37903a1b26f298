# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose HLT came behind the interrupt that was to end it: S155 on debian-5.10, which hung for its 60 s."""

from __future__ import annotations

import pytest

from harness.contract.capture import EMULATED
from harness.contract.kernel_trouble import Blame
from harness.evidence.decode import decode
from harness.evidence.lost_wakeup import LOST_WAKEUP, lost_wakeup
from harness.judge.protocol_check import check
from harness.model.events import Event, Kind
from harness.model.kernels import find_kernel
from tests.unit.judge.golden import NAMES, load, of_today
from tests.unit.judge.packed import packed_capture

N510 = find_kernel("nowait-5.10")


def events(*words: str) -> list[Event]:
    """EXIT reason@rip, ENTRY @rip, VIRQ: of vCPU 0."""
    found = []
    for line, word in enumerate(words, 1):
        name, _, rest = word.partition(":")
        reason, _, rip = rest.partition("@")
        text = f"reason {reason} rip {rip}" if name == "EXIT" else f"rip {rip}"
        found.append(Event(Kind[name], 0, line=line, text=text, value=0xF3 if name == "VIRQ" else 0))
    return found


TAKEN = ("EXIT:interrupt@0x97", "ENTRY:@0x97", "EXIT:vintr@0x97", "VIRQ", "ENTRY:@0x97", "EXIT:msr@0x11", "ENTRY:@0x12")


def test_the_interrupt_that_was_to_end_the_halt_came_before_it() -> None:
    found = lost_wakeup(events(*TAKEN, "EXIT:hlt@0x97"))
    assert found is not None
    trouble, line = found
    assert (trouble.kind, trouble.blame, line) == (LOST_WAKEUP, Blame.MACHINE, 5)
    assert "interrupt 0xf3 between STI and its HLT at 0x97" in trouble.line


@pytest.mark.parametrize(
    "words",
    [
        (*TAKEN, "EXIT:hlt@0x97", "VIRQ", "ENTRY:@0x98"),  # something else woke it
        (*TAKEN, "EXIT:hlt@0x55"),  # another halt
        TAKEN,  # it runs
        ("EXIT:interrupt@0x97", "VIRQ", "ENTRY:@0x97", "EXIT:hlt@0x97"),  # KVM's own doing: no window was told of
        ("EXIT:vintr@0x98", "VIRQ", "ENTRY:@0x98", "EXIT:hlt@0x97"),  # behind the HLT, as it should be
    ],
)
def test_what_is_none(words: tuple[str, ...]) -> None:
    assert lost_wakeup(events(*words)) is None


@pytest.mark.parametrize("name", NAMES)
def test_real_runs_have_none(name: str) -> None:
    assert lost_wakeup(decode(of_today(load(name))).events) is None


def test_a_run_that_hung_so_proves_nothing_where_the_processor_is_emulated() -> None:
    """The capture is of before hosts said so; on hardware it would be KVM that has lost the shadow."""
    files = packed_capture("lost-wakeup")
    assert check(decode(files), N510).host_trouble == ()
    facts = files["facts.json"].replace(b"panic=-1", EMULATED.encode() + b" panic=-1")
    (trouble,) = check(decode(files | {"facts.json": facts}), N510).host_trouble
    assert "interrupt 0xf3 between STI and its HLT at 0x103097 (trace line 2707)" in trouble.line
