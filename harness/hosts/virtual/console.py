# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of a Linux console are findings about the kernel.  Pure: text in, findings out.

The texts are those of the kernel's own printks: kernel/panic.c (panic, __warn), arch/x86/kernel/dumpstack.c
(__die_header), kernel/hung_task.c (check_hung_task), kernel/watchdog.c (watchdog_timer_fn), kernel/watchdog_hld.c,
kernel/rcu/tree_stall.h, lib/list_debug.c, mm/kasan/report.c, kernel/locking/lockdep.c, mm/page_alloc.c (bad_page).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A printk line: time stamp, with an optional caller id (CONFIG_PRINTK_CALLER).  Demanding it keeps programs that write
# to the same console from being taken for the kernel.
_PRINTK = rb"(?:^|\r|\n)(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? "

_PATTERNS: tuple[tuple[str, bytes], ...] = (
    ("panic", rb"Kernel panic - not syncing"),
    ("kasan", rb"BUG: KASAN: "),
    ("lockup", rb"watchdog: BUG: soft lockup|(?:NMI )?watchdog: Watchdog detected hard LOCKUP"),
    ("hung-task", rb"INFO: task .{1,40} blocked for more than \d+ seconds"),
    ("rcu-stall", rb"rcu: INFO: \w+ (?:self-)?detected (?:expedited )?stalls?|INFO: rcu_\w+ (?:self-)?detected"),
    ("bug", rb"kernel BUG at |BUG: |------------\[ cut here \]------------\s+kernel BUG"),
    ("oops", rb"Oops: |general protection fault|double fault: |stack segment: |invalid opcode: |divide error: "),
    ("warning", rb"WARNING: CPU: \d+ PID: \d+"),
    ("lockdep", rb"WARNING: (?:possible |inconsistent |bad unlock|suspicious RCU)"),
    ("list", rb"list_(?:add|del) corruption"),
)

_FINDING = re.compile(
    _PRINTK + rb"(?P<line>" + rb"|".join(rb"(?P<k%d>" % i + p + rb")" for i, (_, p) in enumerate(_PATTERNS)) + rb")"
)


@dataclass(frozen=True, slots=True)
class ConsoleFault:
    """One finding.  ``offset`` (bytes) is where its line starts in the text that was searched."""

    kind: str
    line: str
    offset: int


def find_fault(text: bytes, start: int = 0) -> ConsoleFault | None:
    """The first finding at or after byte ``start``, or None.

    Only finished lines count, so that a growing file can be searched again and again without half a line being judged.
    """
    match = _FINDING.search(text, start)
    if match is None:
        return None
    end = text.find(b"\n", match.start("line"))
    if end < 0:
        return None
    kind = next(name for i, (name, _) in enumerate(_PATTERNS) if match.group(f"k{i}") is not None)
    line = text[match.start("line") : end].decode(errors="replace").rstrip("\r")
    return ConsoleFault(kind, line, match.start("line"))


def tail(text: bytes, lines: int = 20) -> str:
    """The last lines of a console, without escape sequences and other control bytes: safe to print."""
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]", b"", text.replace(b"\r\n", b"\n"))
    return "\n".join(plain.decode(errors="replace").splitlines()[-lines:])
