# SPDX-License-Identifier: GPL-2.0-or-later
"""What would end in an error, or prove nothing, whatever the kernel does, is refused before anything runs."""

from __future__ import annotations

import pytest

from harness.errors import ScenarioError
from harness.scenario.load import load_text

TOP = 'id = "X1"\ntitle = "a title"\n'
PROBE = TOP + '[pages.f]\ngroups = 2\noffset = 0\n[[steps]]\ntouch = "f[1]"\n'
FILE = PROBE.replace("groups = 2", 'groups = 2\nstart = "dropped"') + '[memory]\nbacking = "file"\n'
LINUX = TOP + '[guest]\nkind = "linux"\nmemory_mib = 96\nworkload = "{}"\nworkload_pages = {}\n'
LOCK = '[[steps]]\nhost = [{do = "lock-read", page = "f[0]"}]\n'
FROZEN = '[[steps]]\nhost = [{do = "freeze"}, {do = "stop"}, {do = "savevm"}, {do = "cont"}, {do = "thaw"}]\n'
TWO = '[guest]\nmachine = "q35"\nvcpus = 2\n'
EJECT, PLUG = "[[steps]]\neject = 1\n", '[[steps]]\nhost = [{do = "plug", arg = 1}]\n'
TIMED = '[[timed]]\nat_ms = 5\nhost = [{do = "stop"}, {do = "savevm"}, {do = "cont"}]\n'


def refusals(text: str) -> str:
    try:
        load_text("x.toml", text)
    except ScenarioError as exc:
        return exc.message
    return ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FILE + '[swap]\nkind = "none"\n', "$.memory.backing: the file lies on the device"),
        (FILE + "[guest]\nmemory_mib = 512\n", "$.swap.size_mib: the file of memory_mib = 512"),
        (PROBE.replace("groups = 2", "groups = 2\nrun = 3000\nstride = 3000") + "[swap]\nsize_mib = 16\n",
         "$.swap.size_mib: 6000 pages start on a device that has room for 4095"),
        (PROBE + '[swap]\nkind = "zram"\ndelay_ms = 5\n', "$.swap.delay_ms: nothing delays the reads of kind = zram"),
        (PROBE + '[swap]\nrelease = "halted:2"\n', "$.swap.release: 2 vCPU threads never sleep in a halt"),
        (FILE + LOCK + '[swap]\nrelease = "open"\n', "$.steps[1].host[0]: lock-read waits"),
        (FILE + LOCK + "[swap]\ndelay_ms = 0\n", "$.steps[1].host[0]: lock-read waits"),
        (PROBE + FROZEN + "[swap]\ndelay_ms = 5\n", "$.steps[1].host[2]: savevm reads every page"),
        (PROBE + TWO + EJECT + PLUG + PLUG, "$.steps[3].host[0].arg: vCPU 1 is there"),
        (PROBE + TWO + PLUG + EJECT + PLUG, "$.steps[1].host[0].arg: vCPU 1 is there"),
        (PROBE + TWO + EJECT + PLUG.replace("]]\n", "]]\nvcpu = 1\n"), "$.steps[2].host[0]: nothing puts this plug"),
        (PROBE + "[apf]\nen_gpa = 0x1040000\n",
         "$.steps[0].touch: f[1] has the shared area in it"),
        (PROBE + "[apf]\nen_gpa = 0x1000040\n", "$.apf.en_gpa: a page that starts as swapped holds known data"),
        (LINUX.format("touch", 200) + '[swap]\nkind = "none"\n', "$.swap.kind: the workload touch is swapped out"),
        (LINUX.format("touch", 24576) + '[swap]\nkind = "zram"\n', "$.guest.memory_mib: 96 MiB have no room"),
        (LINUX.format("touch", 4096) + '[swap]\nkind = "zram"\nsize_mib = 16\n', "$.swap.size_mib: 16 MiB have no"),
        ('kernel_params = { "kvm.tdp_mmu" = "off" }\n' + PROBE, "$.kernel_params.'kvm.tdp_mmu': 'off' is not one of"),
        ('kernel_params = { "kvm.halt_poll_ns" = "" }\n' + PROBE, "an empty value writes nothing"),
        (LINUX.format("boot", 5), "$.guest.workload_pages: the workload boot touches none"),
        (LINUX.format("boot", 0) + 'idle = "spin"\n', "$.guest.idle"),
        (LINUX.format("boot", 0) + "[apf]\nen_flags = 1\n", "$.apf: the probe guest is set up by it"),
        (LINUX.format("boot", 0) + TIMED, "$.timed[0].host[1]: savevm is for a probe guest"),
        (LINUX.format("touch", 9) + '[swap]\nkind = "zram"\n[[timed]]\nat_ms = 5\nhost = [{do = "reset"}]\n',
         "$.timed[0].host[0]: a workload that touches pages is let go once"),
        (TOP + '[swap]\nkind = "none"\n[guest]\nkind = "host-program"\nworkload = "apf_halted_test"\nvcpus = 2\n',
         "$.guest.vcpus: a host program makes its VM itself"),
    ],
)  # fmt: skip
def test_what_must_fail_is_refused_with_its_key(text: str, told: str) -> None:
    assert told in refusals(text)


@pytest.mark.parametrize(
    "text",
    [
        FILE + "[guest]\nmemory_mib = 512\n[swap]\nsize_mib = 513\n",
        PROBE + '[swap]\nrelease = "halted:2"\n[guest]\nvcpus = 2\n',
        FILE + LOCK,
        FILE + '[[steps]]\nhost = [{do = "freeze"}]\n' + LOCK + "[swap]\ndelay_ms = 0\n",
        PROBE + FROZEN.replace('"freeze"}', '"freeze"}, {do = "thaw"}') + "[swap]\ndelay_ms = 5\n",
        PROBE + TWO + EJECT + PLUG + EJECT + PLUG,
        PROBE + "[apf]\nen_gpa = 0x1000000\n",
        PROBE.replace("groups = 2", 'groups = 2\nstart = "untouched"') + "[apf]\nen_gpa = 0x1000040\n",
        LINUX.format("touch", 4095) + '[swap]\nkind = "zram"\nsize_mib = 16\n',
        LINUX.format("boot", 0) + '[[timed]]\nat_ms = 5\nhost = [{do = "reset"}]\n',
    ],
)
def test_what_can_be_performed_is_not(text: str) -> None:
    assert refusals(text) == ""
