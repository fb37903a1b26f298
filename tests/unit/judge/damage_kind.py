# SPDX-License-Identifier: GPL-2.0-or-later
"""A kind of damage to a capture, and what it may lead to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from harness.status import Status
from tests.unit.judge.golden import Files


class Expect(StrEnum):
    """What a damage may lead to.  No kind may pass, and none may raise."""

    INCONCLUSIVE = "inconclusive"
    KERNEL = "as a wrong kernel"  # FAIL, or INCONCLUSIVE where something contradicts it after all


@dataclass(frozen=True, slots=True)
class Damage:
    """``apply``: the damaged capture; None where this capture has no such place."""

    name: str
    expect: Expect
    apply: Callable[[Files], Files | None]

    def allows(self, status: Status) -> bool:
        return status is Status.INCONCLUSIVE or (self.expect is Expect.KERNEL and status is Status.FAIL)


JSON_FILES = (
    "plan.json", "end.json", "facts.json", "precondition.json", "trace/stats.json", "counters/before.json",
    "counters/after.json", "after.json", "left.json",
)  # fmt: skip
NEEDED = (*JSON_FILES, "trace/events.txt", "guest/log.bin", "guest/items.bin", "progress.jsonl")


def in_bytes(name: str, what: str, change: Callable[[bytes], bytes | None]) -> Damage:
    def apply(files: Files) -> Files | None:
        if name not in files:
            return None
        changed = change(files[name])
        rest = {k: v for k, v in files.items() if k != name}
        return rest if changed is None else {**rest, name: changed}

    return Damage(f"{name}: {what}", Expect.INCONCLUSIVE, apply)
