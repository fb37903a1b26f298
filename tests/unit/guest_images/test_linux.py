# SPDX-License-Identifier: GPL-2.0-or-later
"""The Linux guest under plain QEMU (q35, TCG: no KVM, so no HYP row): the lines of guest-images/linux/README.md."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.artifacts.images import images
from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.evidence.linux_result import decode

NONCE = "5ca1ab1e"
pytestmark = pytest.mark.build


class LinuxGuest:
    """Its result file, and the other end of its serial line."""

    def __init__(self, process: subprocess.Popen[bytes], serial: socket.socket, result: Path) -> None:
        self.process, self.serial, self.result, self.console = process, serial, result, b""

    def lines(self) -> list[str]:
        return self.result.read_text().splitlines() if self.result.exists() else []

    def wait_line(self, line: str, seconds: float = 90) -> list[str]:
        until = time.monotonic() + seconds
        while line not in self.lines():
            assert self.process.poll() is None, "QEMU ended"
            assert time.monotonic() < until, (self.lines(), self.console[-2000:])
            self.read_console(0.02)
        return self.lines()

    def wait_console(self, text: bytes, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while text not in self.console:
            assert time.monotonic() < until, self.console[-2000:]
            self.read_console(0.02)

    def read_console(self, seconds: float) -> None:
        self.serial.settimeout(seconds)
        try:
            self.console += self.serial.recv(1 << 16)
        except TimeoutError:
            pass


@contextmanager
def start_linux(folder: Path, workload: str, pages: int = 0) -> Iterator[LinuxGuest]:
    store = Store()
    kernel = built_kernel.kernel(store, "debian-6.1")
    initramfs = images.linux_guest_initramfs(store, kernel)
    ours, theirs = socket.socketpair()
    with ours:
        process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-M", "q35", "-nodefaults", "-accel", "tcg", "-cpu", "max", "-smp", "2",
                "-m", "128", "-display", "none", "-no-reboot",
                "-kernel", str(kernel.bzimage), "-initrd", str(initramfs),
                "-append", f"console=ttyS0 panic=-1 quiet apf.nonce={NONCE} apf.workload={workload} apf.pages={pages}",
                "-chardev", f"socket,id=serial,fd={theirs.fileno()}", "-serial", "chardev:serial",
                "-chardev", f"file,id=result,path={folder / 'result'}",
                "-device", "isa-debugcon,iobase=0xe9,chardev=result",
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        try:
            yield LinuxGuest(process, ours, folder / "result")
        finally:
            process.kill()
            process.wait()


def test_boot_reports_and_ends(tmp_path: Path) -> None:
    with start_linux(tmp_path, "boot") as guest:
        lines = guest.wait_line(f"END {NONCE}")
        assert lines[0].startswith("WORKLOAD boot 6.1.") and lines[0].endswith(" 2 cpus")
        assert lines[1:] == ["HYP none", f"END {NONCE}"]


@pytest.mark.parametrize("workload", ["touch", "tasks", "nmi"])
def test_touch_waits_for_go_and_finds_its_pages(tmp_path: Path, workload: str) -> None:
    with start_linux(tmp_path, workload, pages=3000) as guest:
        before = guest.wait_line("READY")
        assert before[1:] == ["HYP none", "READY"]
        guest.serial.sendall(b"not yet\n")
        guest.wait_console(b"not yet")
        assert guest.lines() == before, "only the line go lets it go"
        guest.serial.sendall(b"go\n")
        result = decode("\n".join(guest.wait_line(f"END {NONCE}")), int(NONCE, 16))
        assert result.hyp == (None, None) and result.faults is not None
        assert result.touched is not None and (result.touched.pages, result.touched.wrong) == (3000, 0)


def test_an_l2_touches_the_pages(tmp_path: Path) -> None:
    """TCG emulates SVM; KVM comes as modules, which no other workload loads."""
    with start_linux(tmp_path, "l2", pages=200) as guest:
        guest.wait_line("READY")
        guest.serial.sendall(b"go\n")
        result = decode("\n".join(guest.wait_line(f"END {NONCE}")), int(NONCE, 16))
        assert result.touched is not None and (result.touched.pages, result.touched.wrong) == (200, 0)


def test_a_workload_that_does_not_exist_has_no_end(tmp_path: Path) -> None:
    with start_linux(tmp_path, "dance") as guest:
        guest.wait_console(b"workload: apf.workload: Invalid argument")
        assert [line.split()[0] for line in guest.lines()] == ["WORKLOAD"]
