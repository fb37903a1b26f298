# SPDX-License-Identifier: GPL-2.0-or-later
"""dm-delay's table, the swap signature, and the RAM file."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent import dm, ramfile, swap
from harness.agent.items import page_content
from harness.scenario import plan as p
from tests.unit.agent.conftest import POOL, make_plan


def test_reads_are_delayed_and_writes_are_not() -> None:
    assert dm.delay_table("/dev/vdb", 2048, 200) == "0 2048 delay /dev/vdb 0 200 /dev/vdb 0 0"


@pytest.mark.skipif(shutil.which("swaplabel") is None, reason="needs swaplabel of util-linux")
def test_signature_is_read_by_util_linux(tmp_path: Path) -> None:
    area = tmp_path / "area"
    area.write_bytes(bytes(1 << 20))
    swap.write_signature(str(area))
    said = subprocess.run(["swaplabel", str(area)], capture_output=True, text=True, check=True).stdout
    assert said.startswith("UUID:")
    assert swap.block_bytes(str(area)) == 1 << 20


def test_ram_file(tmp_path: Path) -> None:
    """Every page of the pool has its content, untouched ones are holes, below the pool is a hole."""
    plan = make_plan(pages=2)
    hole = p.Page(POOL + 3 * 4096, p.PageStart.UNTOUCHED, "h[0]")
    plan = replace(plan, guest=p.Guest(memory_mib=20), pages=(*plan.pages, hole))
    path = tmp_path / "ram"
    ramfile.make_ram_file(str(path), plan)
    assert path.stat().st_size == 20 << 20
    with path.open("rb") as file:
        for gpa in (p.POOL_GPA, POOL, POOL + 4096 * 64, (20 << 20) - 4096):
            file.seek(gpa)
            assert file.read(4096) == page_content(gpa, plan.nonce)
        fd = file.fileno()
        assert ramfile.is_hole(fd, hole.gpa) and ramfile.is_hole(fd, 0)
        assert not ramfile.is_hole(fd, POOL)


def test_dropped_pages_are_out_of_the_page_cache() -> None:
    plan = replace(make_plan(pages=1), guest=p.Guest(memory_mib=18))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # on a disk: tmpfs drops nothing
        _drop(Path(folder) / "ram", plan)


def _drop(path: Path, plan: p.Plan) -> None:
    ramfile.make_ram_file(str(path), plan)
    fd = os.open(path, os.O_RDWR)
    try:
        size = 18 << 20
        before = ramfile.cached_pages(fd, size)
        assert before[p.POOL_GPA >> 12] & 1
        ramfile.drop_pages(fd, [(p.POOL_GPA, size)])
        assert not any(b & 1 for b in ramfile.cached_pages(fd, size)[p.POOL_GPA >> 12 :])
    finally:
        os.close(fd)
