# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of before the records: read as what they say, refused where they say something that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.capture import FORMAT, OutsidePage, RunEnd
from harness.contract.probe_abi import Record
from harness.contract.structure import to_json
from harness.contract.words import EndStatus
from harness.errors import CaptureDamaged, UsageError
from harness.evidence import format_1
from harness.evidence.decode import Files, decode, read_end, read_release
from harness.evidence.guestlog import boot_of
from tests.unit.judge.golden import of_today

CAPTURE = Path(__file__).parents[2] / "data/captures/S36"
READERS: dict[str, Callable[[Any], object]] = {
    "end.json": format_1.run_end,
    "precondition.json": format_1.precondition,
    "after.json": format_1.final_state,
    "counters/before.json": format_1.counters,
    "trace/stats.json": format_1.trace_stats,
}
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text() | st.sampled_from(
        ["pages", "others", "others_swapped", "address", "threads", "vmstat", "cpu0", "entries", "1", "status", "nonce"]
    ), inside, max_size=4),
    max_leaves=8,
)  # fmt: skip


def load(folder: Path = CAPTURE) -> Files:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@given(st.sampled_from(sorted(READERS)), values)
def test_any_json_is_a_record_or_refused(name: str, value: Any) -> None:
    try:
        to_json(READERS[name](value))
    except UsageError as exc:
        assert exc.message


@pytest.mark.parametrize("others", [True, 1, "x", {"a": 1}])
def test_others_that_are_no_list_are_refused(others: Any) -> None:
    with pytest.raises(UsageError, match="others"):
        READERS["precondition.json"]({"reached": True, "pages": {}, "others": others})


def test_a_count_of_others_costs_no_memory() -> None:
    found = format_1.precondition({"reached": False, "pages": {}, "others_swapped": 10**15})
    assert len(found.outside) == format_1.MAX_UNNAMED


def test_the_golden_capture_says_what_its_files_say() -> None:
    files = load()
    evidence = decode(files)
    raw = {name: json.loads(files[name]) for name in READERS}
    assert evidence.precondition is not None and evidence.after is not None and evidence.facts is not None
    assert {str(gpa): (p.name, p.start, p.present, p.cached, p.swap_offset, p.sector)
            for gpa, p in evidence.precondition.pages.items()} == {
        gpa: (p["name"], p["start"], p["present"], p["cached"], p["swap_offset"], p.get("sector"))
        for gpa, p in raw["precondition.json"]["pages"].items()
    }  # fmt: skip
    assert {str(gpa): (p.present, p.dirty) for gpa, p in evidence.after.pages.items()} == {
        gpa: (p["present"], p.get("dirty")) for gpa, p in raw["after.json"]["pages"].items()
    }
    assert len(evidence.events) >= sum(cpu["entries"] for cpu in raw["trace/stats.json"].values())
    assert list(evidence.facts.vcpu_tids) == json.loads(files["facts.json"])["vcpu_tids"]


@pytest.mark.parametrize("folder", sorted(CAPTURE.parent.iterdir()), ids=lambda p: p.name)
def test_the_same_capture_in_both_formats_is_the_same_evidence(folder: Path) -> None:
    files = load(folder)
    old, new = decode(files), decode(of_today(files))
    assert new.after is not None and new.after.shared_flags
    assert old.precondition is not None and new.precondition == replace(old.precondition, nonce=new.plan.nonce)
    rest = {name: moved for name, moved in new.counters.items() if name in old.counters}
    assert set(new.counters) - set(rest) == {"PGMAJ_REST"}  # of what no process had, which format 1 did not say
    assert replace(
        new, end=old.end, files=old.files, after=old.after, precondition=old.precondition, left=None, counters=rest,
        anon_growth=old.anon_growth, guest=old.guest,
    ) == old  # fmt: skip
    if old.guest is not None and new.guest is not None:  # KVM's features are read since format 8
        read = [replace(e, b=boot_of(e).resets) if e.kind is Record.BOOT else e for e in new.guest.all()]
        assert tuple(read) == old.guest.all() and replace(new.guest, vcpus=old.guest.vcpus) == old.guest
    assert read_release(of_today(files)) == read_release(files)


def test_pages_that_were_only_counted_are_still_there() -> None:
    raw = {"reached": True, "pages": {}, "others": [{"address": "0x1000", "gpa": None, "region": "[heap]"}]}
    found = format_1.precondition({**raw, "others_swapped": 2}).outside
    assert found == (OutsidePage(0x1000, None, "[heap]"), OutsidePage(0, None, "not recorded"))


@pytest.mark.parametrize("number", [0, FORMAT + 1, "1", None, 1.5, [], True])
def test_a_format_of_another_time_is_refused_by_its_number(number: object) -> None:
    end = {"format": number, "nonce": 1, "status": "done", "reason": "", "undone": True}
    with pytest.raises(CaptureDamaged, match=rf"has format .*; the formats 1 to {FORMAT} can be read"):
        read_end({"end.json": json.dumps(end).encode()})


def test_the_end_of_a_capture_of_today() -> None:
    end = RunEnd(FORMAT, 7, EndStatus.GUEST_PANIC, "why", undone=False)
    assert read_end({"end.json": to_json(end).encode()}) == end
