# SPDX-License-Identifier: GPL-2.0-or-later
"""A page that is still being read when the recording ends is owed nothing yet; one that was read is."""

from __future__ import annotations

from harness.judge.unfinished import unfinished
from harness.model.events import Event, Kind

DEVICE = 254 << 20


def np(line: int, gpa: int) -> Event:
    return Event(Kind.NP, 0, gpa=gpa, line=line)


def bio(kind: Kind, sector: int, sectors: int = 8, dev: int = DEVICE) -> Event:
    return Event(kind, value=sector, data=sectors, flag=True, dev=dev)


FIRST = (bio(Kind.BIO, 800), bio(Kind.BIO_END, 800), np(5, 0x3000), Event(Kind.DONE, gpa=0x3000))


def test_a_read_in_flight_excuses_its_work() -> None:
    assert unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 64)], DEVICE) == {9}


def test_when_all_reads_have_ended_nothing_is_excused() -> None:
    assert not unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 64), bio(Kind.BIO_END, 64)], DEVICE)


def test_a_merged_request_ends_all_its_bios() -> None:
    merged = [bio(Kind.BIO, 64), bio(Kind.BIO, 72), bio(Kind.BIO_END, 64, 16)]
    assert not unfinished([*FIRST, np(9, 0x5000), *merged], DEVICE)


def test_reads_of_another_device_excuse_nothing() -> None:
    assert not unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 64, dev=1)], DEVICE)


def test_where_no_end_is_recorded_nothing_is_excused() -> None:
    assert not unfinished([np(9, 0x5000), bio(Kind.BIO, 64)], DEVICE)


def test_a_completed_work_is_not_unfinished() -> None:
    done = Event(Kind.DONE, gpa=0x5000)
    assert not unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 64), done], DEVICE)
