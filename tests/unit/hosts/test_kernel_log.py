# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/kmsg with its sequence numbers as the cursor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.contract.kernel_trouble import find_trouble
from harness.hosts.kernel_log import KmsgRecord, next_sequence, parse_kmsg, text_since

SAID = (
    b"5,0,0,-;Linux version 6.1.0\n"
    b"6,1,1500000,-;kvm: Nested Virtualization enabled\n"
    b" SUBSYSTEM=pci\n"
    b"4,3,2000001,c;WARNING: CPU: 0 PID: 7 at arch/x86/kvm/x86.c:1 f+0x1/0x2\n"
    b"rubbish\n"
)


def test_records_are_parsed_and_the_rest_is_left_out() -> None:
    assert parse_kmsg(SAID) == (
        KmsgRecord(0, 0.0, "Linux version 6.1.0"),
        KmsgRecord(1, 1.5, "kvm: Nested Virtualization enabled"),
        KmsgRecord(3, 2.000001, "WARNING: CPU: 0 PID: 7 at arch/x86/kvm/x86.c:1 f+0x1/0x2"),
    )


def test_the_text_is_what_kernel_trouble_understands() -> None:
    found = find_trouble(text_since(parse_kmsg(SAID), 0))
    assert found is not None and found.kind == "warning"
    assert text_since(parse_kmsg(SAID), next_sequence(parse_kmsg(SAID))) == b""


def test_messages_that_were_lost_are_counted() -> None:
    assert text_since(parse_kmsg(SAID), 2).startswith(b"[1 messages lost]\n[    2.000001] WARNING")


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50))
def test_what_is_new_is_never_cut_off_by_a_full_buffer(before: int, size: int, new: int) -> None:
    """The ring buffer keeps the last ``size`` messages; of the new ones it shows all that it still has."""
    everything = tuple(KmsgRecord(n, n / 10, f"message {n}.") for n in range(before + new))
    mark = next_sequence(everything[:before][-size:])
    shown = text_since(everything[-size:], mark).decode()
    kept = [r for r in everything[-size:] if r.sequence >= before]
    assert [line.partition("] ")[2] for line in shown.splitlines() if "lost" not in line] == [r.text for r in kept]
    assert ("lost" in shown) == (bool(kept) and mark > 0 and kept[0].sequence > mark)
