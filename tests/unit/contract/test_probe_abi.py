# SPDX-License-Identifier: GPL-2.0-or-later
"""The header that the probe guest is compiled with is made from the module, and the numbers are those of the prose."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.contract import probe_abi as abi
from harness.contract.words import Op
from tests.unit.waiting import HANG_S

ROOT = Path(__file__).resolve().parents[3]
LAYOUT = ROOT / "guest-images/probe/layout.h"
PROSE = (ROOT / "docs/formats/probe.md").read_text()
SECTIONS = dict(re.findall(r"^## (\d)\. .*?\n(.*?)(?=^## |\Z)", PROSE, re.MULTILINE | re.DOTALL))


def test_layout_h_is_what_the_module_prints() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "harness.contract.probe_abi"], cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=HANG_S,
    ).stdout  # fmt: skip
    assert said == LAYOUT.read_text(), "make layout"


def test_the_compiler_lays_the_structures_out_so(tmp_path: Path) -> None:
    """For 64 and for 32 bits: the guest has code of both.  The assertions are in the header."""
    source = tmp_path / "layout.c"
    source.write_text(f'#include "{LAYOUT}"\n_Static_assert(OP_COUNT == {len(Op)}, "no number is free");\n')
    for width in (["-m64"], ["-m32", "-malign-double"]):
        subprocess.run(
            ["gcc", *width, "-std=gnu11", "-ffreestanding", "-Wall", "-Werror", "-fsyntax-only", source],
            check=True, timeout=HANG_S,
        )  # fmt: skip


def test_members_do_not_overlap() -> None:
    for layout in abi.LAYOUTS:
        at = 0
        for member in layout.members:
            assert member.offset >= at, f"{layout.name}.{member.name}"
            at = member.end
        assert not layout.size or at <= layout.size


def test_the_control_page_is_as_the_prose_says() -> None:
    rows = re.findall(r"^\| (\d+)(?: \+ 4·v)? \| (u\d+) \|", SECTIONS["2"], re.MULTILINE)
    harness_reads = [m for m in abi.CONTROL_PAGE.members if m.offset < 512]
    assert [(int(offset), kind) for offset, kind in rows] == [(m.offset, m.kind) for m in harness_reads]


def test_the_items_file_is_as_the_prose_says() -> None:
    rows = re.findall(r"^\| (\d+) \| (u\d+) \|", SECTIONS["3"], re.MULTILINE)
    members = [*abi.ITEMS_HEADER.members, *abi.ITEM.members]
    assert [(int(offset), kind) for offset, kind in rows] == [(m.offset, m.kind) for m in members]


def test_the_record_kinds_are_as_the_prose_says() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z0-9_]+) \|", SECTIONS["4"], re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {r.name: r.value for r in abi.Record}


u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(st.tuples(u64, u64, u32, u32, u32, u32, u64, u64, u32), st.lists(u32, min_size=1, max_size=16))
def test_a_control_page_comes_back(values: tuple[int, ...], counts: list[int]) -> None:
    names = ("magic", "nonce", "state", "go", "host_index", "ended", "end_mark", "tsc_khz", "host_entries")
    raw = bytearray(4096)
    for name, value in zip(names, values, strict=True):
        member = abi.CONTROL_PAGE.at(name)
        raw[member.offset : member.end] = value.to_bytes(member.end - member.offset, "little")
    for vcpu, count in enumerate(counts):
        raw[64 + 4 * vcpu : 68 + 4 * vcpu] = count.to_bytes(4, "little")
    control = abi.decode_control(bytes(raw[: abi.CONTROL_BYTES]), len(counts))
    assert tuple(getattr(control, name) for name in names) == values
    assert control.counts == tuple(counts)
    assert control.is_valid == (values[0] == 0x3150424F52504641)
