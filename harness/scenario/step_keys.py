# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys of a step that say nothing: values that ask for no action, and keys that the step's action does not look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from harness.scenario.schema import ACTIONS, Step

_ALWAYS = frozenset({"name", "vcpu", "pause_us", "level"})  # sched.c:run_program; level has a check of its own
_INTERRUPTS = frozenset({"interrupts", "tpr", "in_service"})
_LOOKED_AT = {
    "touch": frozenset({"access", "cpl", "interrupts", "shadow", "gif", "no_paging", "by", "then"}),
    "wrmsr": frozenset({"value", "interrupts"}),
    "lapic": frozenset({"interrupts"}),
    "pause": _INTERRUPTS,
    "paging": frozenset({"interrupts"}),
    "host": _INTERRUPTS,
}
"""What the probe guest looks at (guest-images/probe/sched.c:start_touch, ops.c)."""


def check_keys(t: Step) -> Iterator[str]:
    """Keys beside the one action of a step that nothing looks at, as ".key: text"."""
    used = _ALWAYS | _LOOKED_AT.get(t.actions[0], frozenset())
    for key in fields(Step):
        if key.name not in ACTIONS and key.name not in used and getattr(t, key.name) != key.default:
            yield f".{key.name}: {t.actions[0]} has no {key.name}, and nothing would look at it"


def says_nothing(table: dict[str, Any]) -> Iterator[str]:
    """Values of a file that a Step cannot tell from a key that was left out, as "text at $.path"."""
    for top in ("steps", "timed"):
        entries = table.get(top)
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict):
                yield from (f"{text} at $.{top}[{i}].{key}" for key, text in _empty(entry))


def _empty(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, what in (("touch", "page"), ("host", "host word")):
        if entry.get(key) == []:
            yield key, f"an empty list: at least one {what} is needed"
    for key in ("touch", "wrmsr", "lapic", "paging", "after"):
        if entry.get(key) == "":
            yield key, "an empty word says nothing to do"
    if entry.get("name") == "":
        yield "name", "an empty name; leave it out"
    if type(entry.get("timer_us")) is int and entry["timer_us"] == -1:  # what stands for none in a Step
        yield "timer_us", "-1 is no period: a number of microseconds, or 0, which stops the timer, is needed"
    for key in ("init", "eject"):
        if type(entry.get(key)) is int and entry[key] == -1:
            yield key, "-1 is no vCPU"
    for key in ("clear_token", "reset", "page_fault", "pause", "wait_all"):
        if entry.get(key) is False:
            yield key, "false says nothing to do; leave it out"
