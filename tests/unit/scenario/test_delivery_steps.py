# SPDX-License-Identifier: GPL-2.0-or-later
"""What a touch that an event's delivery makes can be."""

from __future__ import annotations

import pytest

from harness.contract.plan import By
from harness.errors import ScenarioError
from harness.scenario.build import build_plan
from harness.scenario.load import load_text

HEAD = """
id = "X1"
title = "a title"
[guest]
vcpus = 2
{more}
[pages.f]
groups = 2
start = "{start}"
"""
STACK = '[[steps]]\ntouch = "f[0]"\nby = "{by}"\naccess = "write"\n'
TABLE = '[[steps]]\ntouch = "f[0]"\nby = "{by}"\n'
NMI = STACK.format(by="nmi") + "cpl = 0\n"
TOKEN = '[[steps]]\ntouch = "f[1]"\n' + STACK.format(by="token")


def text(steps: str, *, start: str = "swapped", more: str = "") -> str:
    return HEAD.format(start=start, more=more) + steps


@pytest.mark.parametrize("steps", [STACK.format(by="interrupt"), NMI])
def test_a_vcpu_sends_itself_an_event_while_anothers_lapic_is_off(steps: str) -> None:
    (scenario,) = load_text("x.toml", text(steps + '[[steps]]\nvcpu = 1\nlapic = "off"\n'))
    assert build_plan(scenario, 1).items[-2].by is not By.INSTRUCTION


@pytest.mark.parametrize("steps", [STACK.format(by="interrupt"), TABLE.format(by="exception"), TOKEN, NMI])
def test_what_makes_an_access_is_in_the_plan(steps: str) -> None:
    (scenario,) = load_text("x.toml", text(steps))
    item = build_plan(scenario, 1).items[-1]
    assert f'by = "{item.by}"' in steps and item.by is not By.INSTRUCTION


@pytest.mark.parametrize(
    ("steps", "start", "more", "problem"),
    [
        (STACK.format(by="exception") + "cpl = 0\nshadow = true", "swapped", "", ".by: a delivery is one of 64-bit"),
        (STACK.format(by="exception") + "level = 2", "swapped", "", ".by: a delivery is one of 64-bit"),
        (STACK.format(by="interrupt") + "interrupts = false", "swapped", "", ".interrupts: the interrupt would not"),
        (STACK.format(by="interrupt") + '[[steps]]\nlapic = "off"', "swapped", "", "its LAPIC must be on"),
        (STACK.format(by="interrupt"), "swapped", 'irqchip = "off"\ncpu = "host,-kvm-asyncpf-int"', "a LAPIC in QEMU"),
        (STACK.format(by="interrupt") + "[apf]\nvector = 66", "swapped", "", "0x42 is the vector"),
        (STACK.format(by="token"), "swapped", "", ".by: the token is that of the vCPU's step before"),
        (TOKEN.replace("write", "read"), "swapped", "", ".access: the page is the stack of the token's #PF"),
        (TOKEN.replace('"f[1]"\n', '"f[1]"\nthen = "wait"\n'), "swapped", "", "which the program does not wait for"),
        (TOKEN.replace('"f[1]"\n', '"f[1]"\nlevel = 2\n'), "swapped", "", "no token of 64-bit code"),
        (TOKEN.replace('"f[0]"', '"f"'), "swapped", "", ".touch: a token is delivered on one page"),
        (TABLE.format(by="interrupt"), "zero-swapped", "", ".touch: an IDT holds gates"),
        (TABLE.format(by="interrupt") + STACK.format(by="exception"), "swapped", "", "a stack elsewhere holds no IDT"),
        (STACK.format(by="interrupt") + STACK.format(by="exception") + "vcpu = 1", "swapped", "", "at the same time"),
        (STACK.format(by="nmi"), "swapped", "", ".cpl: the vCPU sends itself the NMI at CPL 0"),
        (NMI + '[[steps]]\nlapic = "off"', "swapped", "", "its LAPIC must be on"),
        (NMI + '[[steps]]\nhost = [{ do = "nmi" }]', "swapped", "", ".by: the NMI of a host word"),
        ('[[steps]]\npause = true\nby = "interrupt"', "swapped", "", ".by: pause has no by"),
    ],
)
def test_what_cannot_be_done_is_refused(steps: str, start: str, more: str, problem: str) -> None:
    with pytest.raises(ScenarioError, match=problem.replace(".", r"\.").replace("[", r"\[")):
        load_text("x.toml", text(steps, start=start, more=more))
