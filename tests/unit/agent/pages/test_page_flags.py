# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of kpageflags, and those of a page of this very process."""

from __future__ import annotations

import mmap
import os

from harness.agent.pages.page_flags import FrameFlags, PageFlags, decode_flags
from harness.agent.pages.pagemap import PageMap
from tests.unit.agent.conftest import root_only


def test_words() -> None:
    assert decode_flags(0) == FrameFlags(False, False, False, False, False, False)
    assert decode_flags(1 << 4 | 1 << 5) == FrameFlags(
        dirty=True, swap_cache=False, large=False, on_list=True, uptodate=False, swap_backed=False
    )
    assert decode_flags(1 << 3).uptodate and not decode_flags(1 << 3).swap_backed
    assert decode_flags(1 << 14).swap_backed and not decode_flags(1 << 14).uptodate
    assert decode_flags(1 << 13 | 1 << 15) == FrameFlags(dirty=False, swap_cache=True, large=True, on_list=None)
    assert decode_flags(1 << 24).on_list is None, "the zero page"
    assert decode_flags(1 << 16).large


@root_only
def test_a_page_of_our_own() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE) as memory, PageMap(os.getpid()) as pagemap, PageFlags() as flags:
        memory.write(b"x")
        import ctypes

        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        found = flags.of(pagemap.frame(address))
        assert found is None or (found.large, found.uptodate, found.swap_backed) == (False, True, True)
        assert flags.of(None) is None and flags.of(0) is None and flags.group_of(None) is None
