# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log of a host without a serial console: records of /dev/kmsg, each with its sequence number.

The sequence number is the cursor.  A length of text would not do: once the ring buffer is full it hardly changes, and
what is new would be cut off.  Documentation/ABI/testing/dev-kmsg: "level,sequnum,timestamp,flags;text".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KmsgRecord:
    """``sequence`` counts all messages since the boot; ``time_s`` as in dmesg."""

    sequence: int
    time_s: float
    text: str


def parse_kmsg(output: bytes) -> tuple[KmsgRecord, ...]:
    """The records in the output of who reads /dev/kmsg, one a line; what is no record is left out."""
    found = []
    for line in output.decode(errors="replace").splitlines():
        head, mark, text = line.partition(";")
        fields = head.split(",")
        if mark and len(fields) >= 3 and fields[1].isdigit() and fields[2].isdigit():
            found.append(KmsgRecord(int(fields[1]), int(fields[2]) / 1e6, text))
    return tuple(found)


def next_sequence(records: tuple[KmsgRecord, ...]) -> int:
    """The number that the next message will have: a cursor behind all of these."""
    return max((r.sequence for r in records), default=-1) + 1


def text_since(records: tuple[KmsgRecord, ...], cursor: int) -> bytes:
    """The records from ``cursor`` on as dmesg prints them; 0: all.  Messages that the buffer has lost are counted."""
    new = [r for r in records if r.sequence >= cursor]
    lines = [f"[{r.time_s:12.6f}] {r.text}\n" for r in new]
    if cursor > 0 and new and new[0].sequence > cursor:
        lines.insert(0, f"[{new[0].sequence - cursor} messages lost]\n")
    return "".join(lines).encode()
