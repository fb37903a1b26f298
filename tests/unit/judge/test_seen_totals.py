# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads that do not count, and whose reads count."""

from __future__ import annotations

import pytest

from harness.judge.align import issuer
from harness.judge.episodes import Episode
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Reader
from harness.model.events import Event, Kind
from harness.model.kernels import find_kernel
from harness.status import Status
from tests.unit.judge.golden import edit_trace, load

DEVICE = 253 << 20


@pytest.mark.parametrize(("sector", "reader"), [(-1, Reader.WORKER), (104, Reader.WORKER), (112, Reader.NOBODY)])
def test_a_kworker_has_read_the_page_only_if_its_bio_covers_it(sector: int, reader: Reader) -> None:
    episode = Episode(0, Event(Kind.PF, 0, t_ns=10))
    bio = Event(Kind.BIO, t_ns=20, worker=True, dev=DEVICE, value=96, data=16, flag=True)
    assert issuer(episode, DEVICE, [bio], 30, sector) is reader
    assert issuer(episode, DEVICE, [bio], 15, sector) is Reader.NOBODY


@pytest.mark.long  # a search for an order that agrees, in vain
def test_a_bio_of_fewer_pages_than_its_window_is_noticed() -> None:
    """do_sync_mmap_readahead reads one page instead of 32 where mmap_miss is above its limit: no other count moves."""

    def shorter(lines: list[str]) -> list[str]:
        at = [n for n, line in enumerate(lines) if "block_bio_queue: 253,0" in line and " + 256 " in line][-1]
        return [*lines[:at], lines[at].replace(" + 256 ", " + 248 "), *lines[at + 1 :]]

    verdict = judge_capture(edit_trace(load("S36"), shorter), find_kernel("nowait-6.1"))
    assert verdict.status is Status.FAIL
    assert [f.about for f in verdict.findings if f.rule == "total"] == ["READ_V"]


def test_pages_are_not_counted_where_the_agent_undid_its_read_ahead() -> None:
    files = load("S36")
    line = b'{"n": %d, "kind": "write", "path": "/sys/block/nbd0/queue/%s", "old": "1"}\n'
    last = files["journal.jsonl"] + line % (90, b"nomerges") + line % (91, b"read_ahead_kb")
    kernel = find_kernel("nowait-6.1")
    for journal, counted in ((last, True), (last + line % (92, b"max_sectors_kb"), False)):
        totals = judge_capture(files | {"journal.jsonl": journal}, kernel).totals
        (read,) = (t for t in totals if t.name == "READ_V")
        assert read.ok
        assert read.predicted.low > 0
        assert (read.seen is not None) is counted
