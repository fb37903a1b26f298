# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads that do not count, and whose reads count."""

from __future__ import annotations

import pytest

from harness.judge.align import issuer
from harness.judge.episodes import Episode
from harness.judge.verdict_types import Reader
from harness.model.events import Event, Kind

DEVICE = 253 << 20


@pytest.mark.parametrize(("sector", "reader"), [(-1, Reader.WORKER), (104, Reader.WORKER), (112, Reader.NOBODY)])
def test_a_kworker_has_read_the_page_only_if_its_bio_covers_it(sector: int, reader: Reader) -> None:
    episode = Episode(0, Event(Kind.PF, 0, t_ns=10))
    bio = Event(Kind.BIO, t_ns=20, worker=True, dev=DEVICE, value=96, data=16, flag=True)
    assert issuer(episode, DEVICE, [bio], 30, sector) is reader
    assert issuer(episode, DEVICE, [bio], 15, sector) is Reader.NOBODY
