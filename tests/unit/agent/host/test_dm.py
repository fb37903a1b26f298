# SPDX-License-Identifier: GPL-2.0-or-later
"""dm-delay's table, the swap signature, and the RAM file."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.agent.host import dm, swap
from harness.agent.pages import extents
from harness.agent.pages.page_content import page_content
from harness.agent.ram.file import drop_pages, make_ram_file
from harness.agent.ram.guest_ram import cached_pages, is_hole
from harness.contract import plan as p
from harness.errors import InfraFault, Unsupported
from tests.unit.agent.conftest import POOL, make_plan, root_only


def test_reads_are_delayed_and_writes_are_not() -> None:
    assert dm.delay_parameters("/dev/vdb", 200) == "/dev/vdb 0 200 /dev/vdb 0 0"


def test_a_new_table_is_resumed_before_another_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads may set the delay at once: a list of timed words, and the end of the run, which lets all go."""
    commands: list[int] = []

    def ioctl(number: int, _name: str, _payload: bytes = b"", flags: int = 0) -> bytes:
        commands.append(number)
        time.sleep(0.01)
        return b""

    monkeypatch.setattr(dm, "_ioctl", ioctl)
    monkeypatch.setattr(dm, "device_of", lambda _: "dm-0")
    monkeypatch.setattr(dm, "write_text", lambda *_: None)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(dm.set_delay, "apf", "/dev/vdb", 8, ms) for ms in range(4)]:
            done.result()
    assert commands == commands[:2] * 4 and len(set(commands)) == 2


@root_only
def test_targets_of_this_machine() -> None:
    """The same as dmsetup(8) lists, where it is installed and there is device-mapper."""
    if shutil.which("dmsetup") is None or not os.path.exists("/dev/mapper/control"):
        pytest.skip("no dmsetup or no device-mapper")
    said = subprocess.run(["dmsetup", "targets"], capture_output=True, text=True, check=False)
    if said.returncode:
        pytest.skip(said.stderr)
    assert sorted(dm.targets()) == sorted(line.split()[0] for line in said.stdout.splitlines())


@root_only
def test_a_refusal_is_told_in_words() -> None:
    with pytest.raises((InfraFault, Unsupported), match=r"apf-never-made|no device-mapper"):
        dm.remove("apf-never-made")


@pytest.mark.skipif(shutil.which("swaplabel") is None, reason="needs swaplabel of util-linux")
def test_signature_is_read_by_util_linux(tmp_path: Path) -> None:
    area = tmp_path / "area"
    area.write_bytes(bytes(1 << 20))
    swap.write_signature(str(area))
    said = subprocess.run(["swaplabel", str(area)], capture_output=True, text=True, check=True).stdout
    assert said.startswith("UUID:")
    assert swap.block_bytes(str(area)) == 1 << 20


def test_ram_file(tmp_path: Path) -> None:
    """Planned pages have their content, untouched ones are holes, so is what lies below the pool; and what read-ahead
    around a planned page can reach is data."""
    plan = make_plan(pages=2)
    hole = p.Page(POOL + 3 * 4096, p.PageStart.UNTOUCHED, "h[0]")
    plan = replace(plan, guest=p.Guest(memory_mib=20), pages=(*plan.pages, hole))
    path = tmp_path / "ram"
    make_ram_file(str(path), plan)
    assert path.stat().st_size == 20 << 20
    with path.open("rb") as file:
        for page in plan.pages[:2]:
            file.seek(page.gpa)
            assert file.read(4096) == page_content(page.gpa, plan.nonce)
        fd = file.fileno()
        around = range(max(p.POOL_GPA, POOL - 16 * 4096), POOL + 48 * 4096, 4096)
        assert not [gpa for gpa in around if gpa != hole.gpa and is_hole(fd, gpa)]
        assert is_hole(fd, hole.gpa) and is_hole(fd, 0)
        assert not is_hole(fd, POOL)


def test_extents_tell_pieces(tmp_path: Path) -> None:
    """A hole tears a range, and what was only allocated is not written."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, (Path(folder) / "f").open("wb") as file:
        fd = file.fileno()
        os.posix_fallocate(fd, 0, 16 * 4096)
        os.pwrite(fd, bytes(range(256)) * 64, 4096)  # pages 1 to 4
        os.pwrite(fd, b"x" * 4096, 8 * 4096)
        os.fsync(fd)
        try:
            found = extents.written_extents(fd)
        except OSError:
            pytest.skip("no FIEMAP here")
    assert [(e.start // 4096, e.end // 4096) for e in found] == [(1, 5), (8, 9)]
    assert len(extents.parts(found, 4096, 5 * 4096)) == 1
    assert len(extents.parts(found, 0, 16 * 4096)) == 2
    assert extents.parts(found, 2 * 4096, 3 * 4096)[0].physical == found[0].physical + 4096


def test_only_populated_pages_are_in_the_page_cache_of_a_new_ram_file() -> None:
    populated = p.Page(POOL + 3 * 4096, p.PageStart.POPULATED, "p[0]")
    plan = make_plan(pages=1)
    plan = replace(plan, guest=p.Guest(memory_mib=20), pages=(*plan.pages, populated))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # on a disk: tmpfs drops nothing
        _drop(Path(folder) / "ram", plan)


def _drop(path: Path, plan: p.Plan) -> None:
    make_ram_file(str(path), plan)
    fd = os.open(path, os.O_RDWR)
    try:
        size = 20 << 20
        before = cached_pages(fd, size)
        kept = [page.gpa >> 12 for page in plan.pages if page.start is p.PageStart.POPULATED]
        assert [n for n, b in enumerate(before) if b & 1] == kept
        drop_pages(fd, [(p.POOL_GPA, size)])
        assert not any(b & 1 for b in cached_pages(fd, size)[p.POOL_GPA >> 12 :])
    finally:
        os.close(fd)


def test_what_lies_between_holes_follows_on_the_device() -> None:
    """However small it is: else a read-around over the holes is no single bio (Q21 of a sixteenth round)."""
    untouched = [page for n in range(0, 48, 8) for page in range(n, n + 4)]
    holes = tuple(p.Page(POOL + n * 4096, p.PageStart.UNTOUCHED, f"h[{n}]") for n in untouched)
    last = p.Page((20 << 20) - 4096, p.PageStart.UNTOUCHED, "h[99]")
    data = p.Page(POOL + 5 * 4096, p.PageStart.DROPPED, "d[0]")
    plan = replace(make_plan(pages=1), guest=p.Guest(memory_mib=20), pages=(*holes, data, last))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        make_ram_file(f"{folder}/ram", plan)
        with (Path(folder) / "ram").open("rb") as file:
            fd = file.fileno()
            assert [is_hole(fd, page.gpa) for page in plan.pages] == [page is not data for page in plan.pages]
            assert os.fstat(fd).st_size == 20 << 20
            found = extents.written_extents(fd)
    assert len(found) == 7
    assert [after.physical for after in found[1:]] == [before.at(before.end) for before in found[:-1]]
