# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be null: each value that can be has its row, and the real captures of today obey them."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator

import pytest

from harness.contract import capture
from harness.contract.capture import FORMAT, SINCE, WITHOUT_LEFT, WITHOUT_MARKS, OfRun
from harness.errors import CaptureDamaged
from harness.evidence.decode import decode
from harness.evidence.nullable import MUST
from tests.unit.judge.golden import NAMES, Files, edit_boots, load, of_today

RECORDS = [cls for cls in vars(capture).values() if isinstance(cls, type) and issubclass(cls, OfRun)]


def optional(cls: type) -> Iterator[tuple[type, str]]:
    """Fields of a record, and of what it consists of, that can be null."""
    for name, hint in typing.get_type_hints(cls).items():
        if typing.get_origin(hint) is types.UnionType and type(None) in typing.get_args(hint) and name != "nonce":
            yield cls, name
        yield from _below(hint)


def _below(hint: object) -> Iterator[tuple[type, str]]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield from optional(hint)
    for inner in typing.get_args(hint):
        yield from _below(inner)


def test_each_field_that_can_be_null_has_a_row() -> None:
    assert len(RECORDS) >= 7
    assert {row for record in RECORDS for row in optional(record)} == set(MUST)


def test_keys_that_came_later_are_fields() -> None:
    fields = {name for cls, name in MUST} | {f.name for f in dataclasses.fields(capture.HostFacts)}
    fields |= {f.name for f in dataclasses.fields(capture.MemoryLeft)}
    assert set(SINCE) <= fields and set(SINCE.values()) <= set(range(WITHOUT_LEFT + 2, FORMAT + 2))


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_of_today_is_decoded(name: str) -> None:
    assert decode(of_today(load(name))).end.format == FORMAT


def changed(files: Files, name: str, key: str, value: object) -> Files:
    raw = json.loads(files[name])
    *before, last = key.split(".")
    inner = raw
    for part in before:
        inner = next(iter(inner.values())) if part == "*" else inner[part]
    inner[last] = value
    return {**files, name: json.dumps(raw).encode()}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("left.json", "mapped", None),
        ("left.json", "listed", None),
        ("counters/before.json", "other_majors", None),
        ("counters/after.json", "anon_pages", None),
        ("after.json", "areas", None),
        ("after.json", "pages.*.large", None),
        ("after.json", "pages.*.word", None),
        ("after.json", "pages.*.uptodate", None),
        ("after.json", "pages.*.swap_backed", None),
        ("after.json", "pages.*.on_list", None),
        ("after.json", "pages.*.charged", None),
        ("left.json", "slots", None),
        ("precondition.json", "pages.*.swap_offset", 0),
        ("facts.json", "run.io_dev", None),
        ("facts.json", "run.io_dev", ""),
        ("facts.json", "run", None),
        ("facts.json", "host.compaction", False),
        ("facts.json", "host.debugfs", ""),
        ("facts.json", "host.vm_event_counters", False),
        ("facts.json", "host.cgroup_memory", False),
        ("facts.json", "host.kvm_events", []),
        ("facts.json", "run.mm_fault_probe", False),
        ("facts.json", "run.accel", "tcg"),
    ],
)
def test_what_nobody_could_have_left_out(name: str, key: str, value: object) -> None:
    """Before, each of these passed with a rule less, or was told as the kernel's fault."""
    files = of_today(load("S29"))
    after = json.loads(files["after.json"])
    after["pages"] = dict(sorted(after["pages"].items(), key=lambda item: not item[1]["present"]))
    files["after.json"] = json.dumps(after).encode()
    decode(files)
    damaged = changed(files, name, key, value)
    with pytest.raises(CaptureDamaged):
        decode(damaged)


def test_an_older_capture_need_not_have_what_came_later() -> None:
    files = of_today(load("S29"))
    end = {**json.loads(files["end.json"]), "format": WITHOUT_MARKS}
    log = edit_boots(files["guest/log.bin"], lambda resets, _: (resets, 0))
    older = {**files, "end.json": json.dumps(end).encode(), "host/dmesg.txt": b"", "guest/log.bin": log}
    older = changed(changed(older, "after.json", "pages.*.word", None), "left.json", "listed", None)
    host = json.loads(older["facts.json"])
    del host["host"]["compaction"]
    assert decode({**older, "facts.json": json.dumps(host).encode()}).left is not None
    with pytest.raises(CaptureDamaged, match="mapped"):
        decode(changed(older, "left.json", "mapped", None))
    with pytest.raises(CaptureDamaged, match="nbd: missing"):
        del host["host"]["nbd"]
        decode({**older, "facts.json": json.dumps(host).encode()})
