# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage to gate.json: to the file, to what it says of one read, and to which reads there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.unit.judge.damage_kind import Damage, Expect, in_bytes
from tests.unit.judge.golden import Files, is_of_today

GATE = "gate.json"
Log = dict[str, Any]
KEYS = ("at_ns", "answered_ns", "sector", "sectors", "pages", "why", "error", "ended_ns")


def gate_damages() -> Iterator[Damage]:
    """All of them; each is INCONCLUSIVE."""
    yield from _file()
    for place, which in (("first", 0), ("last", -1)):
        for key in KEYS:
            yield _read(f"{key} of the {place} read is gone", which, lambda r, key=key: r.pop(key))  # type: ignore[misc]
            for what, value in (("null", None), ("text", "7"), ("a list of lists", [[1]]), ("a float", 1.5)):
                yield _read(f"{key} of the {place} read: {what}", which, _put(key, lambda _, v=value: v))  # type: ignore[misc]
        for what, key, change in (
            ("answered before it was asked for", "answered_ns", lambda _: 1),
            ("asked for at no time", "at_ns", lambda _: 0),
            ("at a negative time", "at_ns", lambda t: -t),
            ("ended before it was answered", "ended_ns", lambda _: 1),
            ("of the sector before", "sector", lambda s: s - 8),
            ("of a sector far away", "sector", lambda s: s + (1 << 30)),
            ("of an odd sector", "sector", lambda s: s + 1),
            ("of no sectors", "sectors", lambda _: 0),
            ("of negative sectors", "sectors", lambda s: -s),
            ("of a page more", "sectors", lambda s: s + 8),
            ("of an unknown reason", "why", lambda _: "fish"),
            ("late", "why", lambda _: "late"),
            ("failed", "error", lambda _: 5),
            ("of no page", "pages", lambda p: [] if p else [1]),
            ("of a page twice", "pages", lambda p: p + p or [1, 1]),
            ("of the next page", "pages", lambda p: [x + 1 for x in p] or [1]),
        ):
            yield _read(f"the {place} read is {what}", which, _put(key, change))
        yield _dropped(f"the {place} read dropped", lambda log, at=which: log["reads"].pop(at))  # type: ignore[misc]
    yield _dropped("all reads dropped", lambda log: log["reads"].clear())
    yield _log("a negative number held", lambda log: log.update(held=-1))
    yield _log("one held", lambda log: log.update(held=1))
    yield _log("an unknown key", lambda log: log.update(fish=1))
    yield _log("no nonce", lambda log: log.pop("nonce"))
    yield _log("another nonce", lambda log: log.update(nonce=log["nonce"] ^ 1))
    yield _log("a read that nobody made", _stranger)


def _file() -> Iterator[Damage]:
    for what, change in (
        ("missing", lambda _: None), ("empty", lambda _: b""), ("half", lambda d: d[: len(d) // 2]),
        ("garbage", lambda d: bytes(len(d))), ("doubled", lambda d: d + d), ("null", lambda _: b"null"),
        ("a list", lambda _: b"[]"), ("an empty object", lambda _: b"{}"),
        ("UTF-16", lambda d: d.decode().encode("utf-16")),
        ("deep", lambda _: b"[" * 100_000),
    ):  # fmt: skip
        yield in_bytes(GATE, what, change)


def _stranger(log: Log) -> None:
    log["reads"].append({**log["reads"][0], "sector": 8, "pages": []})


def _put(key: str, change: Callable[[Any], Any]) -> Callable[[Log], object]:
    def apply(read: Log) -> None:
        read[key] = change(read[key])

    return apply


def _dropped(name: str, change: Callable[[Log], object]) -> Damage:
    """A page of a userfaultfd that comes although nobody has copied it could be a kernel's doing."""
    return replace(_log(name, change), expect=Expect.KERNEL)


def _read(name: str, which: int, change: Callable[[Log], object]) -> Damage:
    return _log(name, lambda log: change(log["reads"][which]))


def _log(name: str, change: Callable[[Log], object]) -> Damage:
    """Of captures of today's format that have a gate."""

    def apply(files: Files) -> Files | None:
        if GATE not in files or not is_of_today(files):
            return None
        log = json.loads(files[GATE])
        change(log)
        return {**files, GATE: json.dumps(log).encode()}

    return Damage(f"{GATE}: {name}", Expect.INCONCLUSIVE, apply)
