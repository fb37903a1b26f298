# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of damage to a capture, each with what it may lead to.  ``python -m tests.unit.judge.damage`` prints the table.

A kind is a file, a place in it and what is done there; each is tried on the captures that have that place.  Damage is
INCONCLUSIVE.  Only where the capture that comes out is one that a wrong kernel could have caused may it be FAIL.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.contract.probe_abi import (
    ITEM,
    ITEMS_HEADER,
    LEAF_BITS,
    PAGE_SIZE,
    RECORD_CODEC,
    RESETS_BITS,
    FeaturesLeaf,
    Record,
)
from harness.judge.verdict import judge_capture
from harness.model.cpu_model import Feature
from harness.model.kernels import KernelModel, find_kernel
from harness.status import Status
from tests.unit.judge.damage_gate import gate_damages
from tests.unit.judge.damage_json import json_places, json_values
from tests.unit.judge.damage_kind import JSON_FILES, NEEDED, Damage, Expect, in_bytes
from tests.unit.judge.damage_outside import damages_from_outside
from tests.unit.judge.golden import (
    NAMES,
    Files,
    edit_boots,
    edit_trace,
    is_event,
    is_of_today,
    load,
    of_today,
    recounted,
)
from tests.unit.judge.packed import packed_capture

GATED = ("S28R+noio-6.1", "S49+noio-6.1", "S49M+noio-6.1")
"""Reads of a device whose ends the plan decides, and pages of a userfaultfd."""
WOKEN = "S79+nowait-7.3"
"""With sched_waking."""


def damages() -> Iterator[Damage]:
    """All kinds."""
    yield from _whole_files()
    yield from json_places()
    yield from json_values()
    yield from _trace()
    yield from _records()
    yield from _items()
    yield from _progress()
    yield from gate_damages()
    yield from damages_from_outside()


def _whole_files() -> Iterator[Damage]:
    for name in (*NEEDED, "host/dmesg.txt", "guest/console.txt"):
        yield in_bytes(name, "missing", lambda _: None)
    for name in NEEDED:
        yield in_bytes(name, "empty", lambda _: b"")
        yield in_bytes(name, "half", lambda d: d[: len(d) // 2])
        yield in_bytes(name, "last byte cut, newline gone", lambda d: d.rstrip()[:-1])
        yield in_bytes(name, "garbage", lambda d: bytes(len(d)))
        yield in_bytes(name, "doubled", lambda d: d + d)
        yield in_bytes(name, "not UTF-8", lambda d: b"\xff\xfe" + d)
    for name in ("host/dmesg.txt", "guest/console.txt", "qmp.jsonl"):
        yield _of_today(in_bytes(name, "empty", lambda _: b""))
        yield _of_today(in_bytes(name, "half", lambda d: d[: len(d) // 2]))
        yield _of_today(in_bytes(name, "its last half", lambda d: d[len(d) // 2 :]))
    for name in JSON_FILES:
        for what, text in (
            ("null", b"null"), ("a list", b"[]"), ("a number", b"7"), ("an empty object", b"{}"), ("text", b'"x"'),
            ("deep", b"[" * 100_000), ("infinite", b'{"nonce": 1e999}'), ("half a pair", b'{"nonce": "\\ud800"}'),
        ):  # fmt: skip
            yield in_bytes(name, what, lambda _, text=text: text)  # type: ignore[misc]
        yield in_bytes(name, "its first key twice", _twice)
        yield _of_today(in_bytes(name, "an unknown key", lambda d: d.replace(b"{", b'{"fish": 1,', 1)))


def _of_today(damage: Damage) -> Damage:
    """What the reader of format 1, which looks for the keys that it knows, does not see."""
    return replace(damage, apply=lambda files: damage.apply(files) if is_of_today(files) else None)


def _twice(data: bytes) -> bytes:
    raw = json.loads(data)
    key = next(iter(raw))
    return data.replace(b"{", b"{" + json.dumps(key).encode() + b": 1,", 1)


EVENTS = (
    "kvm_entry", "kvm_exit", "kvm_page_fault", "kvm_try_async_get_page", "kvm_async_pf_not_present",
    "kvm_async_pf_repeated_fault", "kvm_async_pf_completed", "kvm_async_pf_ready", "kvm_inj_exception",
    "kvm_apic_accept_irq", "kvm_msr", "kvm_eoi", "kvm_vcpu_wakeup", "kvm_userspace_exit", "kvm_unmap_hva_range",
    "block_bio_queue", "sched_switch", "mm_fault", "mm_fault_ret",
)  # fmt: skip
PROTOCOL = EVENTS[2:9]
"""Those of which each one counts."""


def _trace() -> Iterator[Damage]:
    for event in EVENTS:
        for what, change in (("dropped", _drop), ("doubled", _double)):
            for place, which in (("first", 0), ("last", -1)):
                yield Damage(
                    f"trace: {place} {event} {what}, counts left", Expect.INCONCLUSIVE,
                    _lines(event, which, change, recount=False),
                )  # fmt: skip
                if event in PROTOCOL:
                    yield Damage(
                        f"trace: {place} {event} {what}, counts mended", Expect.KERNEL,
                        _lines(event, which, change, recount=True),
                    )  # fmt: skip
        for what, pattern, new in (
            ("on another thread", r"-(\d+)( +\[)", r"-9\1\2"),
            ("an hour late", r" (\d+)(\.\d{6}: )", r" 9\1\2"),
            ("with a text cut off", r"(\d: \w+: ).*", r"\1"),
            ("of an unknown name", r"(\d: )\w+:", r"\1kvm_fish:"),
            ("not a line", r"^.*$", "fish"),
        ):
            if what == "on another thread" and event not in ("kvm_entry", "kvm_page_fault", "kvm_try_async_get_page"):
                continue
            if what == "with a text cut off" and event in ("kvm_exit", "kvm_vcpu_wakeup"):
                continue  # nothing of their texts is needed
            yield Damage(f"trace: {event} {what}", Expect.INCONCLUSIVE, _lines(event, 0, _sub(pattern, new)))
    for event, what, pattern, new in (
        ("kvm_async_pf_not_present", "token", r"token 0x1", "token 0x7"),
        ("kvm_async_pf_ready", "token", r"token 0x1", "token 0x7"),
        ("kvm_async_pf_not_present", "address", r"gva 0x1", "gva 0x5"),
        ("kvm_page_fault", "address", r"address 0x000000000", "address 0x000000080"),
        ("kvm_async_pf_completed", "address in the VMM", r"address 0x7", "address 0x6"),
        ("kvm_page_fault", "access", r"error_code 0x(.*)4$", r"error_code 0x\g<1>6"),
        ("kvm_apic_accept_irq", "vector", r"vec \d+", "vec 99"),
    ):
        which = -1 if event == "kvm_async_pf_ready" else 0  # the first is the wake-all
        yield Damage(f"trace: {event}: another {what}", Expect.KERNEL, _lines(event, which, _sub(pattern, new)))
    for what in ("read", "write"):
        other = _sub(rf"({what} 4b564d02 = 0x)\w", r"\g<1>7")
        yield Damage(
            f"trace: EN {what} as another value", Expect.INCONCLUSIVE, _lines(f"kvm_msr: msr_{what} 4b564d02", 0, other)
        )
    for place, which in (("last but one", -2), ("last", -1)):
        for what, change in (("dropped", _drop), ("doubled", _double), ("of no thread", _sub(r" pid=\d+", " pid=9"))):
            lines = _lines("sched_waking", which, change, recount=True)
            yield Damage(f"trace: {place} sched_waking {what}, counts mended", Expect.INCONCLUSIVE, lines)
    yield Damage("trace: the head is gone", Expect.INCONCLUSIVE, _head(lambda _: ""))
    yield Damage("trace: the head counts one more", Expect.INCONCLUSIVE, _head(lambda h: re.sub(r"\d+/", "99999/", h)))
    yield Damage("trace: all events on one CPU more", Expect.INCONCLUSIVE, _swapped_cpus)
    yield Damage("trace: two lines in each other's place", Expect.INCONCLUSIVE, _turned)
    yield Damage("trace: of another run", Expect.INCONCLUSIVE, _of_another_run)


Change = Callable[[list[str], int], list[str]]


def _drop(lines: list[str], at: int) -> list[str]:
    return lines[:at] + lines[at + 1 :]


def _double(lines: list[str], at: int) -> list[str]:
    return [*lines[: at + 1], *lines[at:]]


def _sub(pattern: str, new: str) -> Change:
    return lambda lines, at: [*lines[:at], re.sub(pattern, new, lines[at], count=1), *lines[at + 1 :]]


def _lines(event: str, which: int, change: Change, *, recount: bool = False) -> Callable[[Files], Files | None]:
    def apply(files: Files) -> Files | None:
        lines = files["trace/events.txt"].decode().splitlines()
        there = [i for i, x in enumerate(lines) if is_event(x) and re.search(rf": {event}\b", x)]
        if not there or change(lines, there[which]) == lines:
            return None
        return edit_trace(files, lambda x: change(x, there[which]), recount=recount)

    return apply


def _head(change: Callable[[str], str]) -> Callable[[Files], Files | None]:
    return lambda files: edit_trace(
        files, lambda lines: [change(x) if "entries-in-buffer" in x else x for x in lines], recount=False
    )


def _swapped_cpus(files: Files) -> Files | None:
    """Counts that cancel: one event fewer on a CPU, one more on another."""
    raw = json.loads(files["trace/stats.json"])
    rows = list(raw.get("cpus", raw).values())
    if len(rows) < 2:
        return None
    rows[0]["entries"], rows[1]["entries"] = rows[0]["entries"] - 1, rows[1]["entries"] + 1
    return {**files, "trace/stats.json": json.dumps(raw).encode()}


def _turned(files: Files) -> Files | None:
    lines = files["trace/events.txt"].decode().splitlines()
    first = next(i for i, x in enumerate(lines) if is_event(x)) + 4
    lines[first], lines[first + 1] = lines[first + 1], lines[first]
    return {**files, "trace/events.txt": "\n".join(lines).encode() + b"\n"}


def _of_another_run(files: Files) -> Files:
    other = load("S64" if b'"S61"' in files["plan.json"] else "S61")
    _, stats = recounted(other["trace/events.txt"].decode().splitlines(), other["trace/stats.json"])
    mine = of_today(other)["trace/stats.json"] if is_of_today(files) else stats
    return {**files, "trace/events.txt": other["trace/events.txt"], "trace/stats.json": mine}


_FIELDS = ("tsc", "kind", "vcpu", "item", "a", "b")
_COULD_BE = {(Record.END, "a"), (Record.TOKEN, "a"), (Record.TOKEN, "b"), (Record.READY, "a"),
             (Record.READY, "doubled"), (Record.READY, "dropped")}  # fmt: skip
"""What the guest read or was told: a kernel could have given it another value."""


def _records() -> Iterator[Damage]:
    kinds = [k for k in Record if k not in (Record.FAULT, Record.CR2, Record.STAGE, Record.IRQ)]
    for kind in kinds:
        for which, place in ((0, "first"), (-1, "last")):
            for what in ("dropped", "doubled", "swapped", *_FIELDS):
                expect = Expect.KERNEL if (kind, what) in _COULD_BE else Expect.INCONCLUSIVE
                if (kind, what) in ((Record.BOOT, "tsc"), (Record.MSR, "tsc")) or (kind, what) == (Record.IDLE, "b"):
                    continue
                yield Damage(f"log: {place} {kind.name} {what}", expect, _record(kind, which, what))
    yield from _offers()
    for place, offset, width in (("magic", 0, "Q"), ("nonce", 8, "Q"), ("state", 16, "I"), ("end mark", 32, "Q"),
                                 ("TSC", 40, "Q"), ("count", 64, "I")):  # fmt: skip
        yield Damage(f"log: control page: {place}", Expect.INCONCLUSIVE, _control(offset, width))


_EAX = RESETS_BITS + LEAF_BITS
"""Of the b of a BOOT: the bit that EAX begins at."""


def _offers() -> Iterator[Damage]:
    """What a vCPU says that KVM offers it.  A kernel may offer what it should not, or less; what it says of the other
    features is judged by nobody."""

    def flips(feature: Feature) -> Callable[[int], int]:
        return lambda above: above ^ 1 << _EAX + feature

    def says(leaf: int, more: int = 0) -> Callable[[int], int]:
        return lambda above: (above >> _EAX | more) << _EAX | leaf << RESETS_BITS

    for feature in Feature:
        yield Damage(f"log: {feature.name} is offered, or not", Expect.KERNEL, _offer(flips(feature)))
    yield Damage("log: features not read", Expect.INCONCLUSIVE, _offer(says(FeaturesLeaf.NOT_READ)))
    yield Damage("log: features of no leaf", Expect.INCONCLUSIVE, _offer(says(max(FeaturesLeaf) + 1)))
    yield Damage("log: features, and no KVM", Expect.INCONCLUSIVE, _offer(says(FeaturesLeaf.NONE, 1)))


def _offer(change: Callable[[int], int]) -> Callable[[Files], Files | None]:
    """``change``: what b of each BOOT has above the number of resets."""

    def apply(files: Files) -> Files | None:
        last = edit_boots(files["guest/log.bin"], lambda resets, above: (resets, change(above)))
        return {**files, "guest/log.bin": last} if last != files["guest/log.bin"] else None

    return apply


def _record(kind: Record, which: int, what: str) -> Callable[[Files], Files | None]:
    def apply(files: Files) -> Files | None:
        data = files["guest/log.bin"]
        counts = list(struct.unpack_from("<16I", data, 64))
        entries = [list(RECORD_CODEC.unpack_from(data, o)) for o in range(PAGE_SIZE, len(data), RECORD_CODEC.size)]
        there = [i for i, e in enumerate(entries) if e[1] == kind]
        if not there:
            return None
        at = there[which]
        vcpu = entries[at][2]
        if what == "dropped":
            del entries[at]
            counts[vcpu] -= 1
        elif what == "doubled":
            entries.insert(at, list(entries[at]))
            counts[vcpu] += 1
        elif what == "swapped":
            if at + 1 >= len(entries) or entries[at + 1][2] != vcpu or entries[at][0] == entries[at + 1][0]:
                return None
            entries[at], entries[at + 1] = entries[at + 1], entries[at]
        elif what == "tsc":
            entries[at][0] = 0
        elif what == "kind":
            entries[at][1] = 99
        else:
            entries[at][_FIELDS.index(what)] ^= 1
        page = bytearray(data[:PAGE_SIZE])
        struct.pack_into("<16I", page, 64, *counts)
        return {**files, "guest/log.bin": bytes(page) + b"".join(RECORD_CODEC.pack(*e) for e in entries)}

    return apply


def _control(offset: int, width: str) -> Callable[[Files], Files | None]:
    def apply(files: Files) -> Files | None:
        data = bytearray(files["guest/log.bin"])
        (old,) = struct.unpack_from(f"<{width}", data, offset)
        struct.pack_into(f"<{width}", data, offset, old ^ 1)
        return {**files, "guest/log.bin": bytes(data)}

    return apply


def _items() -> Iterator[Damage]:
    for layout, base in ((ITEMS_HEADER, 0), (ITEM, ITEMS_HEADER.size)):
        for member in layout.members:
            yield in_bytes("guest/items.bin", f"{layout.name}.{member.name}", _bit(base + member.offset))
        yield in_bytes("guest/items.bin", f"{layout.name}: beyond its members", _bit(base + layout.size - 1))


def _bit(offset: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def _progress() -> Iterator[Damage]:
    for step in ("prepare-host", "go", "guest-ended", "collect", "end"):
        yield in_bytes("progress.jsonl", f"{step} dropped", _step(step, lambda x: []))
        yield in_bytes("progress.jsonl", f"{step} doubled", _step(step, lambda x: [x, x]))
        yield in_bytes(
            "progress.jsonl", f"{step} an hour early", _step(step, lambda x: [{**x, "mono": x["mono"] - 3600}])
        )
        yield in_bytes("progress.jsonl", f"{step} at no time", _step(step, lambda x: [{**x, "mono": None}]))
        yield in_bytes("progress.jsonl", f"{step} is unknown", _step(step, lambda x: [{**x, "step": "fish"}]))
    yield in_bytes("progress.jsonl", "of another end", _step("end", lambda x: [{**x, "status": "error"}]))
    for shift in (-1000, 1000):
        yield in_bytes(
            "progress.jsonl",
            f"all {shift} s",
            lambda d, shift=shift: b"\n".join(  # type: ignore[misc]
                json.dumps({**json.loads(x), "mono": json.loads(x)["mono"] + shift}).encode() for x in d.splitlines()
            ),
        )


def _step(step: str, change: Callable[[dict[str, Any]], Sequence[dict[str, Any]]]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        rows = [json.loads(line) for line in data.splitlines()]
        changed = [new for row in rows for new in (change(row) if row["step"] == step else [row])]
        return b"".join(json.dumps(row).encode() + b"\n" for row in changed)

    return apply


def captures() -> dict[str, Files]:
    """Those that the kinds are tried on: each golden one as it was written, and as it would be written today; three
    whose pages had a gate, of another kernel; and one that says who was woken."""
    found = {}
    for name in NAMES:
        found[name] = load(name)
        found[f"{name} of today"] = of_today(found[name])
    for name in GATED:
        found[f"{name} of today"] = of_today(packed_capture(name))
    found[WOKEN] = packed_capture(WOKEN)
    return found


def kernel_of(capture: str) -> KernelModel:
    """The one that a capture is of, by its name."""
    name = capture.removesuffix(" of today")
    return find_kernel(name.partition("+")[2] or "nowait-6.1")


@dataclass(frozen=True, slots=True)
class Trial:
    """One kind on one capture."""

    damage: Damage
    capture: str
    status: Status
    reason: str

    @property
    def ok(self) -> bool:
        return self.damage.allows(self.status)


def attempt(damage: Damage, capture: str, files: Files) -> Trial | None:
    """What the judge says; None where the capture has no such place."""
    damaged = damage.apply(dict(files))
    if damaged is None:
        return None
    verdict = judge_capture(damaged, kernel_of(capture))
    return Trial(damage, capture, verdict.status, verdict.reason)


def main() -> int:
    """Each kind on the first capture, of those beginning with its own turn, that has its place."""
    rows, lacking = [], []
    all_ = list(captures().items())
    for number, damage in enumerate(damages()):
        turned = all_[number % len(all_) :] + all_[: number % len(all_)]
        trial = next((t for name, files in turned if (t := attempt(damage, name, files)) is not None), None)
        if trial is None:
            lacking.append(damage.name)
            continue
        rows.append(trial)
        mark = "ok   " if trial.ok else "WRONG"
        print(f"{mark} {trial.status:12} {damage.expect:18} {trial.capture:14} {damage.name}: {trial.reason[:90]}")
    count = Counter((t.damage.expect.value, t.status.value, t.ok) for t in rows)
    for (expect, status, ok), n in sorted(count.items()):
        print(f"{n:5} expected {expect}: {status}{'' if ok else '  <-- WRONG'}")
    print(f"{len(rows)} kinds tried, {len(lacking)} have no place in any capture: {', '.join(lacking) or '-'}")
    return int(any(not t.ok for t in rows))


if __name__ == "__main__":
    sys.exit(main())
