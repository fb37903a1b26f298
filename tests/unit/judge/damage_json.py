# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage to the JSON files of a capture: keys gone or of another type, and values that something contradicts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from harness.contract.capture import FORMAT, SINCE
from tests.unit.judge.damage_kind import JSON_FILES, Damage, Expect, in_bytes
from tests.unit.judge.golden import Files, is_of_today, load, of_today

MAY_LACK = re.compile(r"plan\.json.*|facts\.json\.host\.kvm_parameters\..*|precondition\.json\.totals\..*host")
"""The plan's defaults, and what a kernel may have or not."""
SINCE_TODAY = re.compile(
    r"end\.json.*(reason|undone)|facts\.json.*|precondition\.json.*(reason|totals.*host|hole|sector|problem|swap_type|swap_offset)"
    r"|counters/.*(swaps|interrupts|other_majors)|after\.json.*(name|dirty|swap_cache|large|areas)|trace/stats\.json.*left_out"
)
"""Places that older formats could leave out: defaults, and what nobody judges by."""

MAY_BE_EMPTY = re.compile(
    r"facts\.json\.(host\.(kernel_version|cmdline|kvm_modules|kvm_parameters.*|thp|lru_gen)|run\.qemu_version)"
)
"""What a host may have or not, and nobody judges by."""

Place = tuple[str, ...]


def _places(raw: Any, at: Place = ()) -> Iterator[Place]:
    """Leaves, and of tables with many like entries the first entry only."""
    if isinstance(raw, dict) and raw:
        keys = list(raw)
        alike = all(k.lstrip("-").isdigit() for k in keys) or len(keys) > 40
        for key in keys[:1] if alike else keys:
            yield (*at, key)
            yield from _places(raw[key], (*at, key))
    elif isinstance(raw, list) and raw and isinstance(raw[0], dict):
        yield from _places(raw[0], (*at, "0"))


def json_places() -> Iterator[Damage]:
    """Each key of each JSON file of today: gone, null, of another type."""
    sample = of_today(load("S29"))
    for name in JSON_FILES:
        for place in _places(json.loads(sample[name])):
            where = ".".join(place)
            for what, value in (("missing", _GONE), ("of another type", {"a": [None]})):
                came_within = SINCE.get(place[-1], 0) > FORMAT  # due from the next format on
                if what == "missing" and (came_within or MAY_LACK.fullmatch(f"{name}.{where}")):
                    continue
                if name.startswith("counters") and len(place) > 1:
                    continue  # see _values: only some of the hundred counters and threads are asked
                today = SINCE_TODAY.fullmatch(f"{name}.{where}") is not None
                yield Damage(f"{name}: {where}: {what}", Expect.INCONCLUSIVE, _set(name, place, value, today=today))
            if name == "plan.json":
                continue  # a default of the plan is empty, too
            there = _at(sample[name], place)
            emptied = isinstance(there, str | list | dict) and there and not MAY_BE_EMPTY.fullmatch(f"{name}.{where}")
            for what, value in (("of null", None), *((("of nothing", type(there)()),) if emptied else ())):
                if there is not None and not (name.startswith("counters") and len(place) > 1):
                    yield Damage(f"{name}: {where}: {what}", Expect.INCONCLUSIVE, _set(name, place, value, today=True))


def _at(data: bytes, place: Place) -> Any:
    found = json.loads(data)
    for key in place:
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


_GONE = object()


def _set(name: str, place: Place, value: object, *, today: bool = False) -> Callable[[Files], Files | None]:
    """A JSON value replaced, by a function of the old one where ``value`` is callable, or taken away.

    :param today: only of captures of today's format.
    """

    def apply(files: Files) -> Files | None:
        if name not in files or (today and not is_of_today(files)):
            return None
        raw = json.loads(files[name])
        inner = raw
        facts = json.loads(files["facts.json"])
        tid = str(facts.get("run", facts)["vcpu_tids"][0])
        where = [tid if key == "@vcpu" else key for key in place]
        for key in where[:-1]:
            inner = _inside(inner, key)
            if inner is None:
                return None
        last: Any = int(where[-1]) if isinstance(inner, list) else where[-1]
        if last == "*":
            last = next(iter(inner), None)
        if last is None or (isinstance(inner, dict) and last not in inner):
            return None
        if value is inner[last]:
            return None
        if value is _GONE:
            del inner[last]
        else:
            old = inner[last]
            inner[last] = value(old) if callable(value) else value
            if inner[last] == old:
                return None
        return {**files, name: json.dumps(raw).encode()}

    return apply


def _changed_only(apply: Callable[[Files], Files | None]) -> Callable[[Files], Files | None]:
    def changed(files: Files) -> Files | None:
        damaged = apply(files)
        same = damaged is not None and all(json.loads(damaged[n]) == json.loads(files[n]) for n in JSON_FILES)
        return None if same else damaged

    return changed


def _inside(raw: Any, key: str) -> Any:
    if isinstance(raw, list):
        return raw[int(key)] if len(raw) > int(key) else None
    if key == "*":
        return next(iter(raw.values()), None)
    return raw.get(key)


def _more(n: Any) -> Any:
    return n + 1


def json_values() -> Iterator[Damage]:
    """Values of the right type that another file, or another place of the same file, contradicts."""
    at: Place
    inconclusive: list[tuple[str, str, object, str]] = [
        ("plan.json", "nonce", _more, "off by one"),
        ("plan.json", "guest.vcpus", _more, "off by one"),
        ("plan.json", "guest.idle", "fish", "unknown word"),
        ("plan.json", "guest.apf.en_flags", _more, "off by one"),
        ("plan.json", "guest.apf.vector", _more, "off by one"),
        ("plan.json", "guest.apf.lapic_enabled", lambda b: not b, "flipped"),
        ("plan.json", "guest.apf.zero_token", lambda b: not b, "flipped"),
        ("plan.json", "items", lambda i: i[:-1], "cut"),
        ("plan.json", "items", lambda i: i + i[-1:], "doubled"),
        ("plan.json", "items", lambda i: i[::-1], "turned round"),
        ("plan.json", "items.0.access", lambda a: "write" if a == "read" else "read", "swapped"),
        ("plan.json", "items.0.pause_us", _more, "off by one"),
        ("plan.json", "items.0.cpl", lambda c: 3 - c, "swapped"),
        ("plan.json", "items.0.vcpu", 99, "out of range"),
        ("plan.json", "items.0.index", 7777, "out of range"),
        ("plan.json", "items.0.gpa", lambda g: g + 4096, "the next page"),
        ("plan.json", "items.0.interrupts", lambda b: not b, "flipped"),
        ("plan.json", "items.0.wait", lambda b: not b, "flipped"),
        ("plan.json", "items.0.value", 10**30, "too large"),
        ("plan.json", "pages.0.start", "populated", "another state"),
        ("plan.json", "pages.0.gpa", lambda g: g + (1 << 30), "elsewhere"),
        ("end.json", "status", "fish", "unknown word"),
        ("end.json", "nonce", _more, "off by one"),
        ("end.json", "format", 99, "of another time"),
        ("facts.json", "run.vcpu_tids", lambda t: [x + 1 for x in t], "other threads"),
        ("facts.json", "run.vcpu_tids", lambda t: t + t, "doubled"),
        ("facts.json", "run.vcpu_tids", lambda _: [], "emptied"),
        ("facts.json", "run.trace_events", lambda e: [], "emptied"),
        ("facts.json", "run.trace_events", lambda e: e[1:], "first cut"),
        ("facts.json", "run.trace_events", lambda e: e[:-1], "last cut"),
        ("facts.json", "run.trace_events", lambda e: [*e, e[0]], "doubled"),
        ("facts.json", "run.io_dev", "fish", "no number"),
        ("precondition.json", "reached", False, "flipped"),
        ("precondition.json", "pages.*.start", "untouched", "another state"),
        ("precondition.json", "pages.*.present", lambda b: not b, "flipped"),
        ("precondition.json", "pages.*.swapped", lambda b: not b, "flipped"),
        ("precondition.json", "pages.*.gpa", _more, "off by one"),
        ("precondition.json", "pages", lambda p: dict(list(p.items())[1:]), "one gone"),
        ("precondition.json", "pages.*.problem", "why", "a problem"),
        ("precondition.json", "pages.*.swap_offset", None, "null"),
        ("precondition.json", "pages.*.swap_type", None, "null"),
        ("precondition.json", "totals.pages", _more, "off by one"),
        ("precondition.json", "totals.present", _more, "off by one"),
        ("precondition.json", "totals.swapped", _more, "off by one"),
        ("precondition.json", "totals", lambda _: {}, "emptied"),
        ("trace/stats.json", "cpus.*.entries", _more, "off by one"),
        ("trace/stats.json", "cpus.*.overrun", _more, "off by one"),
        ("trace/stats.json", "cpus.*.overrun", -1, "negative"),
        ("trace/stats.json", "cpus.*.dropped_events", _more, "off by one"),
        ("trace/stats.json", "cpus.*.commit_overrun", _more, "off by one"),
        ("after.json", "shared_flags", lambda _: {}, "emptied"),
        ("after.json", "shared_tail_zero", lambda _: {}, "emptied"),
        ("after.json", "shared_token", lambda _: {}, "emptied"),
        ("after.json", "pages", lambda p: dict(list(p.items())[1:]), "one gone"),
    ]
    for name, where, value, what in inconclusive:
        yield Damage(f"{name}: {where}: {what}", Expect.INCONCLUSIVE, _set(name, tuple(where.split(".")), value))
    for when in ("before", "after"):
        name = f"counters/{when}.json"
        for section in ("vmstat", "memory_stat", "kvm", "threads"):
            for what, empty in (("emptied", {}), ("a list", []), ("null", None), ("text", "x")):
                yield Damage(f"{name}: {section}: {what}", Expect.INCONCLUSIVE, _set(name, (section,), empty))
        for field in ("min_flt", "maj_flt"):
            for what, value in (("missing", _GONE), ("text", "7"), ("null", None), ("a float", 1.5)):
                place = ("threads", "@vcpu", field)
                yield Damage(f"{name}: {field} of a vCPU: {what}", Expect.INCONCLUSIVE, _set(name, place, value))
        yield Damage(f"{name}: a vCPU thread is missing", Expect.INCONCLUSIVE, _set(name, ("threads", "@vcpu"), _GONE))
        for at in (("vmstat", "pgmajfault"), ("vmstat", "pswpin"), ("vmstat", "swap_ra"), ("vmstat", "swap_ra_hit"),
                   ("memory_stat", "pgmajfault"), ("kvm", "pf_taken"), ("kvm", "pf_fixed"), ("kvm", "pf_guest"),
                   ("kvm", "pf_emulate"), ("kvm", "pf_spurious"), ("kvm", "halt_exits")):  # fmt: skip
            where = f"{name}: {'.'.join(at)}"
            yield Damage(f"{where}: missing", Expect.INCONCLUSIVE, _set(name, at, _GONE))
            yield Damage(f"{where}: text", Expect.INCONCLUSIVE, _set(name, at, "7"))
            yield Damage(f"{where}: null", Expect.INCONCLUSIVE, _set(name, at, None))
    for at in (("vmstat", "pswpin"), ("kvm", "pf_guest"), ("kvm", "halt_exits")):
        where = f"counters/after.json: {'.'.join(at)}"
        yield Damage(f"{where}: off by one", Expect.KERNEL, _set("counters/after.json", at, _more))
        yield Damage(f"{where}: backwards", Expect.INCONCLUSIVE, _set("counters/after.json", at, -1))
    yield Damage(
        "counters: after is before", Expect.INCONCLUSIVE,
        lambda f: {**f, "counters/after.json": f["counters/before.json"]},
    )  # fmt: skip
    for key in ("kprobe_events", "vm_event_counters", "cgroup_memory", "kvm_device", "compaction"):
        flip = _set("facts.json", ("host", key), lambda there: not there, today=True)
        yield Damage(f"facts.json: host.{key}: flipped", Expect.INCONCLUSIVE, flip)
    for place in (("run", "mm_fault_probe"), ("run", "accel")):
        other = _set("facts.json", place, lambda there: "tcg" if there == "kvm" else not there, today=True)
        yield Damage(f"facts.json: {'.'.join(place)}: another", Expect.INCONCLUSIVE, other)
    for present in (True, False):
        flip = _set("after.json", ("pages", "*", "present"), lambda _, to=present: to, today=True)
        yield Damage(f"after.json: a page is present: {present}", Expect.INCONCLUSIVE, _changed_only(flip))
    yield Damage("after.json: a flags word is left", Expect.KERNEL, _set("after.json", ("shared_flags", "*"), 1))
    yield Damage(
        "after.json: the tail is not zero", Expect.KERNEL, _set("after.json", ("shared_tail_zero", "*"), False)
    )
    for line in ("I/O error, dev vdb, sector 8 op 0x0:(READ) flags 0x0", "Out of memory: Killed process 1 (qemu)",
                 "Read-error on swap-device (254:0:8)"):  # fmt: skip
        yield in_bytes("host/dmesg.txt", line.split(",")[0], lambda d, line=line: d + f"[  9.0] {line}\n".encode())  # type: ignore[misc]
