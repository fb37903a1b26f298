# SPDX-License-Identifier: GPL-2.0-or-later
"""What a probe guest wrote down, as a recording has it."""

from __future__ import annotations

from collections.abc import Iterator

from harness.contract.plan import Op, Plan
from harness.contract.probe_abi import VEC_TIMER, Record
from harness.evidence.guestlog import GuestLog, GuestRecord
from harness.model.simulation.replay import BOOT

_WORDS = {
    Record.READY: "ready", Record.IRQ: "irq", Record.IDLE: "idle", Record.START: "start", Record.WAKE: "wake",
    Record.TOKEN: "token", Record.END: "end", Record.BOOT: BOOT,
}  # fmt: skip


def words_of(log: GuestLog, plan: Plan) -> tuple[tuple[tuple[str, int], ...], ...]:
    """By vCPU, each word with the number of its item or what else it is about."""
    waits = frozenset(i.index for i in plan.items if i.op is Op.WAIT)
    return tuple(tuple(_words(entries, waits)) for entries in log.vcpus[: plan.guest.vcpus])


def _words(entries: tuple[GuestRecord, ...], waits: frozenset[int]) -> Iterator[tuple[str, int]]:
    """Without what the program only waits for: that starts when the guest looks at it, before it is over; and without
    the first boot, which was before the program."""
    for number, entry in enumerate(entries):
        if entry.kind is Record.BOOT and not number:
            continue
        if entry.item in waits:
            continue
        word = _WORDS.get(entry.kind)
        if word is None or (word == "irq" and entry.a != VEC_TIMER):
            continue
        if word in ("start", "wake", "end") and entry.item < 0:
            continue
        yield word, entry.item if word in ("start", "wake", "end") else entry.a
