# SPDX-License-Identifier: GPL-2.0-or-later
"""Real parts for the agent's tests: the probe guest, QEMU under TCG, a child process with memory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import write_text
from harness.agent.host.tracing import Tracing
from harness.contract import plan as p
from tests.this_machine import this_machine_alone
from tests.unit.waiting import HANG_S, wait_until

REPOSITORY = Path(__file__).parents[3]
POOL = p.POOL_GPA + 0x200000

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the agent does")
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64")


@pytest.fixture(scope="session")
def probe_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe guest, built from source."""
    out = tmp_path_factory.mktemp("probe")
    folder = REPOSITORY / "guest-images" / "probe"
    subprocess.run(["make", "-s", "-C", str(folder), f"OUT={out}"], check=True, capture_output=True, timeout=HANG_S)
    return out / "probe.elf"


@pytest.fixture
def instance(host_settings: None) -> Iterator[Tracing]:
    """A real instance that sees this machine's context switches and wake-ups.  Its tracefs is mounted for the test
    alone, which who compares the machine's state before and after takes for a change."""
    with tempfile.TemporaryDirectory() as root:
        try:
            syscalls.mount("tracefs", root, "tracefs")
        except OSError as exc:
            pytest.skip(f"no tracefs: {exc}")
        path = f"{root}/instances/apf-test-{os.getpid()}"
        try:
            os.mkdir(path)
            events = ("sched/sched_switch", "sched/sched_wakeup")
            write_text(f"{path}/tracing_on", "0")
            for event in events:
                write_text(f"{path}/events/{event}/enable", "1")
            yield Tracing(root, path, events)
        finally:
            if os.path.isdir(path):
                write_text(f"{path}/events/enable", "0")
                os.rmdir(path)
            syscalls.umount(root)


def make_plan(
    start: p.PageStart = p.PageStart.POPULATED,
    pages: int = 3,
    extra: tuple[p.Item, ...] = (),
    host_actions: tuple[tuple[p.HostAction, ...], ...] = (),
    timed: tuple[p.TimedAction, ...] = (),
    deadline_s: int = 30,
    memory: p.Memory | None = None,
    vcpus: int = 1,
) -> p.Plan:
    """A plan without swap: ``pages`` read touches, then ``extra``."""
    pool = tuple(p.Page(POOL + 4096 * 64 * i, start, f"f[{i}]") for i in range(pages))
    touches = tuple(p.Item(i, p.Op.TOUCH, gpa=page.gpa, wait=True, page=page.name) for i, page in enumerate(pool))
    more = tuple(p.replace_index(item, pages + i) for i, item in enumerate(extra))
    return p.Plan(
        scenario="T1", title="a test of the agent", nonce=0x0123456789ABCDEF, guest=p.Guest(vcpus=vcpus),
        memory=memory or p.Memory(), swap=p.Swap(kind=p.SwapKind.NONE), pages=pool, items=touches + more,
        host_actions=host_actions, timed=timed, deadline_s=deadline_s, settle_ms=50,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Child:
    """A process that holds ``pages`` anonymous pages at ``address``, the first half of them written."""

    pid: int
    address: int
    pages: int


_HOLDER = """
import ctypes, mmap, sys
area = mmap.mmap(-1, 16 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(8):
    area[page * 4096] = page + 1
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[Child]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Child(process.pid, int(process.stdout.readline()), 16)
    finally:
        process.stdin.close()
        process.wait(timeout=HANG_S)
        process.stdout.close()


@contextmanager
def frozen(place: Path) -> Iterator[Path]:
    """A folder below ``place`` in which whoever writes sleeps and cannot be killed (fs/super.c:freeze_super,
    __sb_start_write), until the context ends; skips the test where there is none.  The machine is the test's alone."""
    places = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    mkfs, freeze = (shutil.which(name, path=places) for name in ("mkfs.ext4", "fsfreeze"))
    if os.geteuid() != 0 or mkfs is None or freeze is None or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root, loop devices, mkfs.ext4 and fsfreeze")
    image, folder = place / "frozen.image", place / "frozen"
    image.write_bytes(bytes(4 << 20))
    subprocess.run([mkfs, "-q", "-F", str(image)], check=True)
    folder.mkdir()
    with this_machine_alone():
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
        sectors = _loop_device(image) / "size"
        try:
            subprocess.run([freeze, "--freeze", str(folder)], check=True)
            try:
                yield folder
            finally:
                subprocess.run([freeze, "--unfreeze", str(folder)], check=True)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            wait_until(lambda: sectors.read_text() == "0\n", "whoever slept there to be gone")


def _loop_device(image: Path) -> Path:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # a device that has none any more
            if file.read_text().startswith(str(image)):
                return file.parents[1]
    raise AssertionError(f"{image} is mounted, and no loop device has it")
