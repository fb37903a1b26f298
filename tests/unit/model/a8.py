# SPDX-License-Identifier: GPL-2.0-or-later
"""Table A.8 of the specification, transcribed by hand: 45 rows, both accesses, all variants.

A row: number, page (arguments of page_in_state), and per access a cell for each column:
``v7`` (noio on its base), ``sync`` (its base without the series), ``n61`` (also 5.10), ``n612``.
A cell is "OUTCOME key=value ...":
  V.maj V.min V.pgmaj V.pswpin V.ra V.rah V.zero   counters that V's part of the walk moves (until the worker runs)
  by=V|W|-                                         who submits the reads
  spte=rw|ro|2m                                    what KVM maps
``APF`` stands for a token (the vCPU of the table can take one).  "" is a cell that the table does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

APF_V = "APF by=V V.maj=0 V.min=0 V.pgmaj=1"  # nowait: V submits, counts PGMAJFAULT, but not maj
APF_W = "APF by=W V.maj=0 V.min=0 V.pgmaj=0 V.pswpin=0 W.pgmaj=1"  # noio: V does nothing
SYNC_V = "SYNC by=V V.maj=1 V.pgmaj=1"
MINOR = "MINOR by=- V.maj=0 V.min=1 V.pgmaj=0"
FAST = "FAST by=- V.maj=0 V.min=0 V.pgmaj=0"
BLOCK_MIN = "BLOCK by=- V.maj=0 V.min=1 V.pgmaj=0"
APF_LOCKED = "APF by=- V.maj=0 V.min=0 V.pgmaj=0 V.pswpin=0"


@dataclass(frozen=True)
class Row:
    number: int
    backing: str
    state: str
    cells: dict[str, str]  # "<column>.<R|W>" or "<column>" for both
    options: dict[str, Any] = field(default_factory=dict)  # of page_in_state
    env: dict[str, Any] = field(default_factory=dict)  # of Environment
    readahead: dict[str, Any] = field(default_factory=dict)  # of ReadaheadState
    accesses: str = "RW"


def row(number: int, backing: str, state: str, *, sync: str = "", v7: str = "", n61: str = "", n612: str = "",
        options: dict[str, Any] | None = None, env: dict[str, Any] | None = None,
        readahead: dict[str, Any] | None = None, accesses: str = "RW", **by_access: str) -> Row:  # fmt: skip
    cells = {"sync": sync, "v7": v7, "n61": n61, "n612": n612 or n61} | {
        k.replace("_", "."): v for k, v in by_access.items()
    }
    return Row(number, backing, state, cells, options or {}, env or {}, readahead or {}, accesses)


ROWS = [
    row(1, "anon", "untouched", accesses="W", sync=MINOR, v7=MINOR, n61=f"{MINOR} spte=rw"),
    row(2, "anon", "untouched", accesses="R", sync=f"{MINOR} spte=rw", v7=f"{MINOR} spte=rw",
        n61=f"{MINOR} spte=ro"),
    row(3, "anon", "populated", sync=FAST, v7=FAST, n61=f"{FAST} spte=rw"),
    row(4, "anon", "read-only", sync=MINOR, v7=MINOR, n61_R=f"{FAST} spte=ro", n61_W=f"{MINOR} spte=rw",
        n612_R=f"{FAST} spte=ro", n612_W=f"{MINOR} spte=rw"),
    row(5, "anon", "zero-page", sync=MINOR, v7=MINOR, n61_R=f"{FAST} spte=ro", n61_W=f"{MINOR} spte=rw",
        n612_R=f"{FAST} spte=ro", n612_W=f"{MINOR} spte=rw"),
    row(6, "anon", "swapcache", sync=MINOR, v7=MINOR, n61=f"{MINOR} V.pswpin=0 V.rah=0"),
    row(6, "anon", "swapcache-writeback", sync=MINOR, v7=MINOR, n61=f"{MINOR} V.pswpin=0 V.rah=0"),
    row(6, "anon", "swapcache-readahead", sync=MINOR, v7=MINOR, n61=f"{MINOR} V.pswpin=0 V.rah=1"),
    row(7, "anon", "swapcache-locked", sync="BLOCK by=-", v7=BLOCK_MIN, n61=APF_LOCKED),
    row(8, "anon", "swapped", sync=SYNC_V, v7=APF_W, n61=f"{APF_V} V.pswpin=8"),
    row(8, "anon", "swapped", sync=SYNC_V, v7=APF_W, n61=f"{APF_V} V.pswpin=8", env={"vma_readahead": False}),
    row(9, "anon", "swapped", sync=SYNC_V, v7=APF_W, n61=f"{SYNC_V} V.pswpin=1", n612=f"{APF_V} V.pswpin=1",
        env={"page_cluster": 0}),
    row(9, "anon", "swapped", sync=SYNC_V, v7=APF_W, n61=f"{SYNC_V} V.pswpin=1", n612=f"{APF_V} V.pswpin=1",
        readahead={"vma_hits": 0, "vma_window": 1}),
    row(10, "anon", "swapped", sync=SYNC_V, v7="APF by=W", n61=f"{SYNC_V}", options={"fast": True}),
    row(11, "anon", "swapped", sync="SYNC by=V", v7="APF by=W", n61=f"{SYNC_V} V.pswpin=1",
        options={"synchronous": True}),
    row(12, "anon", "swapped", sync="SYNC by=V", v7="APF by=W", n61=f"{SYNC_V} V.pswpin=8 V.ra=7",
        options={"synchronous": True, "swap_count": 2}),
    row(13, "anon", "zswapped", n61="SYNC by=- V.maj=1 V.pgmaj=1 V.pswpin=0"),
    row(14, "anon", "zero-swapped", sync=SYNC_V, v7=APF_W, n61=f"{APF_V} V.pswpin=8 V.zero=0",
        n612="SYNC by=- V.maj=1 V.pgmaj=1 V.pswpin=0"),
    row(14, "anon", "zero-swapped", n612="SYNC by=- V.maj=1 V.pgmaj=1 V.pswpin=0 V.zero=1", env={"page_cluster": 0}),
    row(15, "file", "cached", sync=MINOR, v7=MINOR, n61_R=f"{MINOR} spte=ro", n61_W=f"{MINOR} spte=rw",
        n612_R=f"{MINOR} spte=ro", n612_W=f"{MINOR} spte=rw"),
    row(16, "file", "cache-locked", sync="BLOCK by=-", v7=BLOCK_MIN, n61=APF_LOCKED),
    row(17, "file", "not-uptodate", sync="SYNC by=V", v7="SYNC by=V V.pgmaj=0", n61="SYNC by=V V.pgmaj=0"),
    row(17, "file", "not-uptodate", v7="LOOP", n61="LOOP", options={"read_fails": True}),
    row(18, "file", "dropped", sync=SYNC_V, v7=APF_W, n61=APF_V),
    row(19, "file", "dropped", sync=SYNC_V, v7=APF_W, n61=SYNC_V, options={"random_advice": True}),
    row(19, "file", "dropped", sync=SYNC_V, v7=APF_W, n61=SYNC_V, env={"ra_pages": 0}),
    row(19, "file", "dropped", sync=SYNC_V, v7=APF_W, n61=SYNC_V, readahead={"mmap_miss": 100}),
    row(20, "file-private", "dropped", accesses="R", sync="SYNC by=V anon=1", v7="APF by=W anon=1",
        n61="APF by=V anon=1"),
    row(21, "file-private", "dropped", accesses="W", sync="SYNC by=V anon=1", v7="APF by=W", n61="APF by=V"),
    row(22, "memfd", "cached", sync=MINOR, v7=MINOR, n61=MINOR),
    row(23, "memfd", "untouched", sync=MINOR, v7=MINOR, n61=MINOR),
    row(24, "memfd", "swapped", sync=SYNC_V, v7=APF_W, n61=SYNC_V),
    row(25, "memfd", "swapcache-locked", sync="BLOCK by=-", v7="BLOCK by=-", n61=BLOCK_MIN),
    row(26, "memfd", "swapcache", sync="MINOR by=-", v7="MINOR by=-", n61="MINOR by=-"),
    row(27, "hugetlb", "populated", sync="FAST by=-", v7="FAST by=-", n61="FAST by=-"),
    row(27, "hugetlb", "untouched", sync="MINOR by=-", v7="MINOR by=-", n61="MINOR by=-"),
    row(27, "hugetlb", "untouched", n61="APF by=-", options={"userfaultfd": True}),
    row(28, "anon", "thp", n61=f"{FAST} spte=2m"),
    row(29, "anon", "swapped", n61="APF by=V", env={"page_cluster": 3}),
    row(29, "anon", "swapped", n61="SYNC by=V", n612="APF by=V", env={"page_cluster": 0}),
    row(30, "pfnmap", "populated", sync="FAST by=-", v7="FAST by=-", n61="FAST by=-"),
    row(30, "pfnmap", "untouched", sync="FAST by=-", v7="FAST by=-", n61="MINOR by=-"),
    row(31, "anon", "hwpoison", sync="ERROR end=sigbus", v7="ERROR end=sigbus", n61="ERROR end=sigbus"),
    row(31, "file", "hwpoison", sync="ERROR end=sigbus", v7="ERROR end=sigbus", n61="ERROR end=sigbus"),
    row(32, "no-vma", "missing", sync="ERROR errno=-14", v7="LOOP", n61="ERROR errno=-14",
        options={"next_vma": "writable"}),
    row(32, "no-vma", "missing", sync="ERROR errno=-14", v7="ERROR errno=-14", n61="ERROR errno=-14",
        options={"next_vma": "read-only"}),
    row(33, "no-vma", "missing", sync="ERROR errno=-14", v7="ERROR end=oops", n61="ERROR errno=-14"),
    row(34, "anon", "untouched", accesses="W", sync="ERROR errno=-14", v7="ERROR errno=-14",
        n61="ERROR errno=-14", options={"read_only_vma": True}),
    row(35, "file", "dropped", accesses="R", sync="ERROR errno=-14", v7="ERROR errno=-14",
        n61="APF by=V prefetch_waits=1", options={"read_only_vma": True}),
    row(36, "anon", "populated", accesses="W", n61="EMUL by=- V.min=0", options={"read_only_slot": True}),
    row(37, "anon", "untouched", n61="APF by=-", options={"userfaultfd": True}),
    row(37, "memfd", "untouched", n61="APF by=-", options={"userfaultfd": True}),
    row(38, "anon", "migration", sync="BLOCK by=-", v7="BLOCK by=-", n61="BLOCK by=- V.min=1"),
    row(39, "anon", "swapped", sync="ERROR errno=-14", v7="LOOP", n61="LOOP", options={"read_fails": True}),
    row(39, "file", "dropped", sync="ERROR errno=-14", v7="LOOP", n61="LOOP", options={"read_fails": True}),
    row(40, "file", "truncated", sync="ERROR errno=-14", v7="LOOP", n61="LOOP"),
    row(41, "anon", "untouched", accesses="W", sync="ERROR errno=-14", v7="LOOP", n61="LOOP",
        options={"charge_fails": True}),
    row(41, "anon", "swapped", sync="ERROR errno=-14", v7="LOOP", n61="LOOP", options={"charge_fails": True}),
    row(42, "anon", "ksm", sync="MINOR by=-", v7="MINOR by=-", n61_R=f"{FAST} spte=ro", n61_W=f"{MINOR} spte=rw",
        n612_R=f"{FAST} spte=ro", n612_W=f"{MINOR} spte=rw"),
    row(43, "anon", "swapped", sync="SYNC by=V", v7="APF by=W", n61="APF by=V", options={"ksm": True}),
    row(43, "anon", "swapped", sync="SYNC by=V", v7="APF by=W", n61="SYNC by=V", n612="APF by=V",
        options={"ksm": True}, env={"page_cluster": 0}),
    row(44, "anon", "untouched", accesses="R", sync=MINOR, v7=MINOR, n61=f"{MINOR} spte=ro"),
    row(44, "anon", "untouched", accesses="W", sync=MINOR, v7=MINOR, n61=f"{MINOR} spte=rw"),
    row(45, "no-slot", "missing", sync="EMUL by=-", v7="EMUL by=-", n61="EMUL by=-"),
]  # fmt: skip
