# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage as it comes from outside: files of two captures mixed, files cut, copied and edited by other programs, numbers
that no kernel prints."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from harness.contract.probe_abi import ITEM, ITEMS_HEADER, PAGE_SIZE, RECORD_CODEC
from tests.unit.judge.damage_kind import JSON_FILES, NEEDED, Damage, Expect, in_bytes
from tests.unit.judge.golden import Files, is_event, is_of_today, load, of_today

TRACE, LOG, ITEMS, PROGRESS = "trace/events.txt", "guest/log.bin", "guest/items.bin", "progress.jsonl"
TIED = tuple(name for name in JSON_FILES if name not in ("plan.json", "end.json"))
"""The records of which the nonce is all that says of which run they are."""


def damages_from_outside() -> Iterator[Damage]:
    """All of them; each is INCONCLUSIVE."""
    for damage in (*_mixed(), *_copied(), *_log(), *_items(), *_trace_text(), *_numbers(), *_progress()):
        yield replace(damage, apply=partial(_changed, damage.apply))


def _changed(apply: Callable[[Files], Files | None], files: Files) -> Files | None:
    """Where nothing is other than it was there is no such place."""
    damaged = apply(files)
    return None if damaged == files else damaged


def _other(files: Files) -> Files:
    """Another capture, of the same format."""
    other = load("S64" if b'"S61"' in files["plan.json"] else "S61")
    return of_today(other) if is_of_today(files) else other


def _mixed() -> Iterator[Damage]:
    for name in NEEDED:
        yield _with(f"{name}: of another run", lambda f, name=name: {name: _other(f)[name]})  # type: ignore[misc]
    for name in TIED:
        yield _with(f"{name}: of another run of the same plan", partial(_of_another_run, name))
    for folder in ("guest/", "trace/", "counters/", "host/"):
        if folder != "host/":  # a quiet log is like another
            yield _with(f"{folder}: of another run", lambda f, p=folder: {k: v for k, v in _other(f).items() if k.startswith(p)})  # type: ignore[misc]  # fmt: skip  # noqa: E501
    yield _with("all but the plan: of another run", lambda f: {k: v for k, v in _other(f).items() if k != "plan.json"})
    yield _with("all but plan and end: of another run",
                lambda f: {k: v for k, v in _other(f).items() if k not in ("plan.json", "end.json")})  # fmt: skip
    for a, b in (
        ("counters/before.json", "counters/after.json"), ("precondition.json", "after.json"), ("plan.json", "end.json"),
        ("facts.json", "precondition.json"), (LOG, ITEMS), (TRACE, PROGRESS), ("trace/stats.json", "end.json"),
    ):  # fmt: skip
        yield _with(f"{a} and {b}: in each other's place", lambda f, a=a, b=b: {a: f[b], b: f[a]})  # type: ignore[misc]


def _of_another_run(name: str, files: Files) -> Files:
    """With another nonce and nothing else.  :raise KeyError: a capture whose records have none."""
    raw = json.loads(files[name])
    return {name: json.dumps({**raw, "nonce": raw["nonce"] ^ 1 << 63}).encode()}


def _with(name: str, change: Callable[[Files], Files]) -> Damage:
    def apply(files: Files) -> Files | None:
        try:
            changed = {**files, **change(files)}
        except (KeyError, IndexError, TypeError):  # a capture without it
            return None
        return changed

    return Damage(name, Expect.INCONCLUSIVE, apply)


def _copied() -> Iterator[Damage]:
    """By programs that think that all is text, or that nothing is."""
    for name in JSON_FILES:
        yield in_bytes(name, "UTF-16", lambda d: d.decode().encode("utf-16"))
        yield in_bytes(name, "with a byte order mark", lambda d: b"\xef\xbb\xbf" + d)
        yield in_bytes(name, "with single quotes", lambda d: d.replace(b'"', b"'"))
        yield in_bytes(name, "with a comment", lambda d: b"// from the lab\n" + d)
        yield in_bytes(name, "with something behind it", lambda d: d + b"\n}")
        yield in_bytes(name, "a quarter", lambda d: d[: len(d) // 4])
    yield in_bytes(LOG, "CR before each LF", lambda d: d.replace(b"\n", b"\r\n") + b"\r\n")
    yield in_bytes(LOG, "read as Latin-1, written as UTF-8", lambda d: d.decode("latin-1").encode())
    yield in_bytes(ITEMS, "read as Latin-1, written as UTF-8", lambda d: d.decode("latin-1").encode() + b"\xc3")
    yield in_bytes(TRACE, "UTF-16", lambda d: d.decode().encode("utf-16"))
    yield in_bytes(TRACE, "in capitals", lambda d: d.upper())


def _log() -> Iterator[Damage]:
    size = RECORD_CODEC.size
    yield in_bytes(LOG, "cut in the middle of its last record", lambda d: d[: -size // 2])
    yield in_bytes(LOG, "its last record cut off", lambda d: d[:-size])
    yield in_bytes(LOG, "only its control page", lambda d: d[:PAGE_SIZE])
    yield in_bytes(LOG, "half a control page", lambda d: d[: PAGE_SIZE // 2])
    yield in_bytes(LOG, "its records zeros", lambda d: d[:PAGE_SIZE] + bytes(len(d) - PAGE_SIZE))
    yield in_bytes(LOG, "its records ones", lambda d: d[:PAGE_SIZE] + b"\xff" * (len(d) - PAGE_SIZE))
    yield in_bytes(LOG, "its first record zeros", lambda d: d[:PAGE_SIZE] + bytes(size) + d[PAGE_SIZE + size :])
    yield in_bytes(LOG, "its control page zeros", lambda d: bytes(PAGE_SIZE) + d[PAGE_SIZE:])
    yield in_bytes(LOG, "a byte too many in front", lambda d: b"\0" + d)
    yield in_bytes(LOG, "a page of zeros in front", lambda d: bytes(PAGE_SIZE) + d)
    yield in_bytes(LOG, "a page of zeros behind the control page", lambda d: d[:PAGE_SIZE] + bytes(PAGE_SIZE) + d[PAGE_SIZE:])  # fmt: skip  # noqa: E501
    yield in_bytes(LOG, "half a record lost in the middle", lambda d: d[: PAGE_SIZE + size] + d[PAGE_SIZE + size * 3 // 2 :])  # fmt: skip  # noqa: E501
    yield in_bytes(LOG, "its records twice", lambda d: d + d[PAGE_SIZE:])
    yield in_bytes(LOG, "its records turned round", lambda d: d[:PAGE_SIZE] + b"".join(_parts(d[PAGE_SIZE:], size)[::-1]))  # fmt: skip  # noqa: E501
    yield in_bytes(LOG, "bytes of each word turned round", lambda d: b"".join(w[::-1] for w in _parts(d, 8)))
    for what, value in (("huge", 1 << 20), ("one more", None)):
        yield in_bytes(LOG, f"its count {what}", lambda d, value=value: _count(d, value))  # type: ignore[misc]


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _count(data: bytes, value: int | None) -> bytes:
    (old,) = struct.unpack_from("<I", data, 64)
    changed = bytearray(data)
    struct.pack_into("<I", changed, 64, old + 1 if value is None else value)
    return bytes(changed)


def _items() -> Iterator[Damage]:
    head, size = ITEMS_HEADER.size, ITEM.size
    yield in_bytes(ITEMS, "cut in the middle of an item", lambda d: d[: -size // 2])
    yield in_bytes(ITEMS, "its last item cut off", lambda d: d[:-size])
    yield in_bytes(ITEMS, "its last item twice", lambda d: d + d[-size:])
    yield in_bytes(ITEMS, "its items zeros", lambda d: d[:head] + bytes(len(d) - head))
    yield in_bytes(ITEMS, "its header zeros", lambda d: bytes(head) + d[head:])
    yield in_bytes(ITEMS, "its items turned round", lambda d: d[:head] + b"".join(_parts(d[head:], size)[::-1]))
    yield in_bytes(ITEMS, "a byte too many in front", lambda d: b"\0" + d)
    yield in_bytes(ITEMS, "bytes of each word turned round", lambda d: b"".join(w[::-1] for w in _parts(d, 8)))


def _trace_text() -> Iterator[Damage]:
    yield _line("cut in the middle of its last line", lambda lines, _: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]])
    yield _line("its events turned round", lambda lines, at: lines[: at[0]] + lines[at[0] :][::-1])
    yield _line("its first event moved to its end", lambda lines, at: [*lines[: at[0]], *lines[at[0] + 1 :], lines[at[0]]])  # fmt: skip  # noqa: E501
    yield _line("its last event moved to its beginning", lambda lines, at: [*lines[: at[0]], lines[-1], *lines[at[0] : -1]])  # fmt: skip  # noqa: E501
    yield _line("each event twice", lambda lines, at: lines[: at[0]] + [x for x in lines[at[0] :] for _ in (0, 1)])
    yield _line("every second event gone", lambda lines, at: lines[: at[0]] + lines[at[0] :: 2])
    yield _line("only its head", lambda lines, at: lines[: at[0]])
    yield _line("two events on one line", lambda lines, at: [*lines[: at[2]], lines[at[2]] + lines[at[3]], *lines[at[4] :]])  # fmt: skip  # noqa: E501
    yield _line("an event on two lines", lambda lines, at: [*lines[: at[2]], lines[at[2]][:50], lines[at[2]][50:], *lines[at[3] :]])  # fmt: skip  # noqa: E501
    yield _line("a mark of lost events", lambda lines, at: [*lines[: at[1]], "CPU:0 [LOST 5 EVENTS]", *lines[at[1] :]])
    for what, pattern, new in (
        ("a time without end", r" (\d+)\.(\d{6}): ", r" \g<1>" + "9" * 400 + r".\2: "),
        ("a negative time", r" (\d+\.\d{6}: )", r" -\1"),
        ("no time", r" \d+\.\d{6}: ", " nan: "),
        ("a time of another notation", r" (\d+)\.(\d{6}): ", r" \1e3: "),
        ("a time with a comma", r" (\d+)\.(\d{6}): ", r" \1,\2: "),
        ("a time of zero", r" \d+\.\d{6}: ", " 0.000000: "),
        ("a thread without end", r"-(\d+)( +\[)", r"-\g<1>" + "9" * 400 + r"\2"),
        ("a thread that is no number", r"-(\d+)( +\[)", r"-fish\2"),
        ("a CPU that no host has", r"\[\d{3}\]", "[99999]"),
        ("a CPU that is no number", r"\[\d{3}\]", "[two]"),
        ("no CPU", r"\[\d{3}\]", ""),
        ("a NUL byte in it", r": kvm", ":\0 kvm"),
        ("the replacement character in its name", r": (\w)\w", ": \\1\ufffd"),
        ("a line separator in its text", r"(: \w+: ?.)", "\\1\u2028"),
        ("a next line (U+0085) in its text", r"(: \w+: ?.)", "\\1\x85"),
        ("a form feed in its text", r"(: \w+: ?.)", "\\1\x0c"),
    ):
        yield _line(f"an event has {what}", lambda lines, at, p=pattern, n=new: _subbed(lines, at[2], p, n))  # type: ignore[misc]
    yield _line("an event's time in digits of another script", lambda lines, at: _digits(lines, at[2]))
    yield _line("tabs for spaces in an event", lambda lines, at: [*lines[: at[2]], lines[at[2]].replace(": ", ":\t"), *lines[at[3] :]])  # fmt: skip  # noqa: E501


def _line(what: str, change: Callable[[list[str], list[int]], list[str]]) -> Damage:
    """``change`` is given the lines and the numbers of those that are events."""

    def apply(data: bytes) -> bytes:
        lines = data.decode().split("\n")
        while not lines[-1]:
            lines.pop()
        return "\n".join(change(lines, [n for n, line in enumerate(lines) if is_event(line)])).encode() + b"\n"

    return in_bytes(TRACE, what, apply)


def _subbed(lines: list[str], at: int, pattern: str, new: str) -> list[str]:
    return [*lines[:at], re.sub(pattern, new, lines[at], count=1), *lines[at + 1 :]]


def _digits(lines: list[str], at: int) -> list[str]:
    time = re.search(r" (\d+\.\d{6}): ", lines[at])
    assert time is not None
    other = "".join(chr(0x660 + int(c)) if c.isdigit() else c for c in time[1])
    return [*lines[:at], lines[at].replace(time[1], other, 1), *lines[at + 1 :]]


_NUMBERS = (
    ("end.json", "nonce"), ("facts.json", "run.vcpu_tids.0"), ("trace/stats.json", "cpus.0.entries"),
    ("trace/stats.json", "cpus.0.overrun"), ("trace/stats.json", "cpus.0.dropped_events"), ("plan.json", "nonce"),
    ("plan.json", "guest.vcpus"), ("plan.json", "items.0.gpa"), ("plan.json", "items.0.vcpu"),
    ("plan.json", "items.0.pause_us"), ("plan.json", "guest.apf.en_flags"), ("precondition.json", "totals.pages"),
    ("counters/after.json", "vmstat.pswpin"), ("counters/before.json", "vmstat.pgmajfault"),
    ("counters/after.json", "anon_pages"), ("counters/after.json", "other_majors.0"),
)  # fmt: skip
_VALUES = {
    "NaN": "NaN",
    "infinite": "Infinity",
    "less than all": "-Infinity",
    "a fraction": "0.5",
    "beyond 64 bits": "1" + "0" * 40,
    "of 5000 digits": "1" * 5000,
    "negative": "-7",
    "true": "true",
    "a text": '"1"',
    "of another script": '"\u0661"',
}


def _numbers() -> Iterator[Damage]:
    for name, place in _NUMBERS:
        for what, text in _VALUES.items():
            yield _with(f"{name}: {place} is {what}", lambda f, n=name, p=place, t=text: {n: _put(f[n], p, t)})  # type: ignore[misc]  # fmt: skip


def _put(data: bytes, place: str, text: str) -> bytes:
    """A JSON value at a place replaced by a text, whatever JSON may say to it."""
    raw = json.loads(data)
    *before, last = place.split(".")
    inner = raw
    for key in before:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    inner[int(last) if isinstance(inner, list) else last] = "@here@"
    return json.dumps(raw).replace('"@here@"', text).encode()


def _progress() -> Iterator[Damage]:
    for what, text in _VALUES.items():
        if what in ("negative", "a fraction"):
            continue  # the clock of a step that nothing asks for
        for step in ("go", "guest-ended"):
            yield in_bytes(PROGRESS, f"{step} at a time that is {what}", lambda d, s=step, t=text: _stamped(d, s, t))  # type: ignore[misc]
    yield in_bytes(PROGRESS, "turned round", lambda d: b"".join(d.splitlines(keepends=True)[::-1]))
    yield in_bytes(PROGRESS, "a line that is a list", lambda d: b"[]\n" + d)
    yield in_bytes(PROGRESS, "a line that is null", lambda d: d + b"null\n")
    yield in_bytes(PROGRESS, "one list", lambda d: b"[" + b",".join(d.splitlines()) + b"]\n")
    yield in_bytes(PROGRESS, "a very deep line", lambda d: b"[" * 100_000 + b"\n" + d)


def _stamped(data: bytes, step: str, text: str) -> bytes:
    rows = [json.loads(line) for line in data.splitlines()]
    return b"".join(
        json.dumps(row | ({"mono": "@here@"} if row["step"] == step else {})).replace('"@here@"', text).encode() + b"\n"
        for row in rows
    )
