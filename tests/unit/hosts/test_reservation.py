# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine for one run at a time, with the real agent on this machine: who waits, who is refused, and what is left."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.agent.host.kernel_files import find_mount
from harness.agent.host.loop import backing_inode
from harness.agent.host.undo import Journal
from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.errors import HostLost, InfraFault
from harness.hosts.deadline import Deadline
from harness.hosts.local import LocalMachine, LocalStream
from harness.hosts.reservation import HostBusy, Reservation, ReserveWish, reserve
from harness.hosts.reserved_host import open_sent
from harness.progress import silent
from tests.unit.agent.conftest import root_only
from tests.unit.waiting import HANG_S, wait_until

pytestmark = [root_only, pytest.mark.usefixtures("host_settings")]


@contextlib.contextmanager
def reserved(
    folder: Path, *, wait_s: float = 0.0, limit_s: float = 600.0, disk_mib: int = 0,
    progress: Callable[..., None] = silent, compare: bool = False,
) -> Iterator[Reservation]:  # fmt: skip
    """This machine, as far as those are concerned who look below ``folder``; other tests change its settings."""
    wish = ReserveWish(
        f"t{secrets.token_hex(5)}", "a test", wait_s, limit_s, str(folder), disk_mib, str(folder / "state"),
        compare,
    )  # fmt: skip
    opener = functools.partial(open_sent, LocalMachine().open, images.agent_zipapp(Store()))
    with reserve(opener, (), wish, "here", progress) as reservation:
        yield reservation


def test_a_free_machine_is_had_and_given_back(tmp_path: Path) -> None:
    with reserved(tmp_path) as reservation:
        machine = reservation.machine
        assert machine.release == os.uname().release
        assert machine.version == os.uname().version
        assert machine.memory_mib > 0
        assert Path(machine.folder).is_dir()
        assert Path(machine.scope).is_dir()
        reservation.check()
    assert not Path(machine.folder).exists()
    assert not Path(machine.scope).exists()
    with pytest.raises(HostLost, match="the run has ended"):
        reservation.check()


def test_an_agent_that_came_in_part_is_not_run_and_no_file_of_it_is_left() -> None:
    """The link is cut while it is sent."""

    class Cut(LocalStream):
        def send(self, data: bytes, deadline: Deadline) -> None:
            super().send(data[: len(data) // 2], deadline)

    before = set(Path("/run").iterdir())
    with contextlib.closing(open_sent(Cut, images.agent_zipapp(Store()), ["reserve", "--name", "cut"])) as stream:
        stream.end_input()
        deadline = Deadline.after(HANG_S, "the end")
        assert stream.read(deadline) == b""
        assert stream.code(deadline) == 1
    assert b"only in part" in stream.errors()
    assert not [path for path in set(Path("/run").iterdir()) - before if "agent" in path.name]


def test_a_second_run_is_refused_and_does_not_disturb_the_first(tmp_path: Path) -> None:
    with reserved(tmp_path) as first:
        with pytest.raises(HostBusy, match=r"in use by run t\w+ of a test since \d\d:"), reserved(tmp_path):
            pass
        first.mark()
        assert Path(first.machine.folder).is_dir()
        assert Path(first.machine.scope).is_dir()


def test_a_second_run_waits_as_long_as_it_is_told_to(tmp_path: Path) -> None:
    heard: list[str] = []
    with contextlib.ExitStack() as first:
        first.enter_context(reserved(tmp_path))
        ending = threading.Thread(target=first.close)

        def on_waiting(text: str, _done: float | None = None) -> None:
            heard.append(text)
            if len(heard) == 2:
                ending.start()

        with reserved(tmp_path, wait_s=HANG_S, progress=on_waiting) as second:
            second.mark()
        ending.join(HANG_S)
    assert all("waiting for here, which is in use by run" in text for text in heard)


def test_waiting_ends(tmp_path: Path) -> None:
    began = time.monotonic()
    with reserved(tmp_path), pytest.raises(HostBusy), reserved(tmp_path, wait_s=2):
        pass
    assert time.monotonic() - began >= 2


def test_kernel_messages_from_a_mark_on(tmp_path: Path) -> None:
    before, after = (f"apf-reservation {secrets.token_hex(6)}" for _ in range(2))
    with reserved(tmp_path) as reservation:
        Path("/dev/kmsg").write_text(f"<5>{before}\n")
        mark = reservation.mark()
        Path("/dev/kmsg").write_text(f"<5>{after}\n")
        assert before.encode() not in reservation.log(mark)
        assert after.encode() in reservation.log(mark)
        assert before.encode() in reservation.log()


def test_who_holds_it_killed_is_a_lost_host_and_the_next_run_takes_back(tmp_path: Path) -> None:
    knob = tmp_path / "knob"
    knob.write_text("1")
    with pytest.raises(HostLost, match="has ended"), reserved(tmp_path) as first:
        # What an agent does: a process in the scope, and a change in a journal of the run.
        left = subprocess.Popen(["sleep", "10000"])
        Path(first.machine.scope, "cgroup.procs").write_text(str(left.pid))
        plan = Path(first.machine.folder, "0123456789abcdef")
        plan.mkdir()
        Journal(str(plan / "journal.jsonl")).write(str(knob), "2")
        os.kill(first.machine.reserved, signal.SIGKILL)
        wait_until(lambda: "has ended" in _reason(first), "the loss")
        first.check()
    assert left.poll() is None
    assert knob.read_text() == "2"
    with reserved(tmp_path) as second:
        assert left.wait(HANG_S) == -signal.SIGKILL
        assert knob.read_text() == "1"
        assert not Path(first.machine.scope).exists()
        assert not Path(first.machine.folder).exists()
        assert Path(second.machine.folder).exists()


def _reason(reservation: Reservation) -> str:
    try:
        reservation.check()
    except HostLost as exc:
        return exc.message
    return ""


def test_what_is_in_the_scope_ends_with_the_run(tmp_path: Path) -> None:
    undoes = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with reserved(tmp_path) as reservation:
        children = [
            subprocess.Popen(["sleep", "10000"]),
            subprocess.Popen(["sh", "-c", undoes], start_new_session=True, stdout=subprocess.PIPE),
        ]
        for child in children:
            Path(reservation.machine.scope, "cgroup.procs").write_text(str(child.pid))
        ready = children[1].stdout
        assert ready is not None and ready.readline() == b"ready\n"
    assert [child.wait(HANG_S) for child in children] == [-signal.SIGTERM, 7]
    ready.close()


def test_silence_is_the_end(tmp_path: Path) -> None:
    """The run is stopped (SIGSTOP, a lost network): its machine is not kept for ever."""
    agent = images.agent_zipapp(Store())
    words = ["python3", str(agent), "reserve", "--name", "quiet", "--silence", "1", "--state", str(tmp_path / "state")]
    with contextlib.closing(LocalStream(words)) as stream:
        out = bytearray()
        while chunk := stream.read(Deadline.after(HANG_S, "the agent")):
            out += chunk
        assert stream.code(Deadline.after(HANG_S, "the agent")) == 0
    assert b"the run said nothing for 1 s" in out
    assert not (tmp_path / "state/quiet").exists()


def test_a_reservation_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(HostLost, match="for 2 s, as long as it may"), reserved(tmp_path, limit_s=2) as reservation:
        wait_until(lambda: bool(_reason(reservation)), "the limit")
        reservation.check()


@contextlib.contextmanager
def of_its_own(folder: Path, size: str) -> Iterator[Path]:
    """A file system that nobody else writes."""
    place = folder / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_is_made_and_gone_with_the_run(tmp_path: Path) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    with of_its_own(tmp_path, "512m") as place:
        with reserved(place, disk_mib=128) as reservation:
            disk = reservation.machine.disk
            assert re.fullmatch(r"/dev/loop\d+", disk), reservation.machine.no_disk
            assert int(Path(f"/sys/block/{disk[5:]}/size").read_text()) << 9 == 128 << 20
            there = os.statvfs(place)
            assert (there.f_blocks - there.f_bfree) * there.f_frsize >= 128 << 20, "its blocks are all there"
            inode = backing_inode(disk)
            assert inode
        assert backing_inode(disk) != inode
        assert not [path for path in place.iterdir() if path.name != "state"]


def test_a_disk_too_small_for_a_swap_file_is_told_with_figures(tmp_path: Path) -> None:
    with of_its_own(tmp_path, "60m") as small, reserved(small, disk_mib=4096) as reservation:
        assert reservation.machine.disk == ""
        assert re.search(r"has 5\d MiB free", reservation.machine.no_disk)


def test_what_cannot_be_put_back_is_an_error(tmp_path: Path) -> None:
    """A process that holds on to a loop device of the run: EBUSY, and nobody is told that all is well."""
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    with (
        contextlib.ExitStack() as held,
        pytest.raises(InfraFault, match=r"here is not as before: loop .*busy"),
        reserved(tmp_path, disk_mib=64) as reservation,
    ):
        held.enter_context(open(reservation.machine.disk, "rb"))
    with reserved(tmp_path):
        pass


SWAPPINESS = Path("/proc/sys/vm/swappiness")


def test_what_is_not_ours_in_the_folder_of_runs_stays(tmp_path: Path) -> None:
    (tmp_path / "state/keys").mkdir(parents=True)
    (tmp_path / "state/keys/host").write_text("a key")
    with reserved(tmp_path):
        pass
    assert (tmp_path / "state/keys/host").read_text() == "a key"


def test_whatever_is_not_as_before_is_told(tmp_path: Path) -> None:
    """By an agent that forgot to note it, or by somebody else: nobody is told that all is well."""
    old = SWAPPINESS.read_text()
    try:
        told = rf"swappiness was '{old.strip()}', is '77'"
        with pytest.raises(InfraFault, match=told), reserved(tmp_path, compare=True):
            SWAPPINESS.write_text("77")
    finally:
        SWAPPINESS.write_text(old)


def test_what_is_changed_and_noted_is_as_before(tmp_path: Path) -> None:
    with reserved(tmp_path, disk_mib=64) as reservation:
        plan = Path(reservation.machine.folder, "0123456789abcdef")
        plan.mkdir()
        Journal(str(plan / "journal.jsonl")).write(str(SWAPPINESS), "77")
        assert SWAPPINESS.read_text() == "77\n"
    assert SWAPPINESS.read_text() != "77\n"


def test_the_name_of_a_run_is_no_path(tmp_path: Path) -> None:
    agent = images.agent_zipapp(Store())
    done = subprocess.run(
        ["python3", agent, "reserve", "--name", "../x", "--state", tmp_path / "state"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert find_mount("tmpfs") and not list(tmp_path.iterdir())
