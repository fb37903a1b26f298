# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the probe guest under plain QEMU (TCG), its RAM in a file that the test reads and writes."""

from __future__ import annotations

import mmap
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.waiting import HANG_S

PROBE_SOURCE = Path(__file__).parents[3] / "guest-images" / "probe"
NONCE = 0x1122334455667788
POOL = 0x1000000
CONTROL, PROGRAM, LOG, LOG_BYTES = 0x800000, 0x840000, 0xA00000, 0x40000
READY, RUNNING, HOST, DONE, PANIC = 1, 2, 3, 4, 5
TOUCH, WRMSR, LAPIC, PAGING, TIMER, CLEAR_TOKEN, PAUSE, WAIT, HOST_OP, RESET, PAGE_FAULT, INIT = range(12)
AFTER = 13
INTERRUPTS, SHADOW, NO_PAGING, WAIT_FLAG, LEVEL2, GIF_CLEAR, TPR, IN_SERVICE = 1, 2, 4, 8, 16, 32, 64, 128
BOOT, START, END, TOKEN, RDY, IRQ, FAULT, CR2, STAGE, MSR, WAKE, IDLE, DONE_REC = range(1, 14)
L2_EXIT, L2_WORDS, L2_FAULT, PAGE_FAULT_REC = range(14, 18)
L2_GUEST = 0x40  # header flag
NPT, INTERCEPT_PF, INTERCEPT_INTR, INTERCEPT_VINTR, INTR_MASKING, L1_INTERRUPTS, INJECT, VIRQ, MOVED = (
    1 << n for n in range(9)
)
BY_INTERRUPT, BY_EXCEPTION, BY_TOKEN, BY_NMI = 1, 2, 3, 4
NONE = 0xFFFFFFFF
MACHINES = {
    "microvm": ["-M", "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=off,memory-backend=ram",
                "-bios", "qboot.rom"],
    "q35": ["-M", "q35,memory-backend=ram", "-nodefaults"],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """An item of the program; the encoder of this test, written from docs/formats/probe.md section 3."""

    op: int
    vcpu: int = 0
    write: bool = False
    cpl: int = 3
    flags: int = INTERRUPTS
    msr: int = 0
    gpa: int = 0
    value: int = 0
    pause_us: int = 0
    by: int = 0

    def encode(self, index: int) -> bytes:
        body = struct.pack("<IBBBBIIQQIB", index, self.op, self.vcpu, self.write, self.cpl, self.flags, self.msr,
                           self.gpa, self.value, self.pause_us, self.by)  # fmt: skip
        return body.ljust(64, b"\0")


def encode_items(
    steps: list[Step],
    *,
    vcpus: int = 1,
    flags: int = 0x1B,
    en_flags: int = 0,
    vector: int = 0,
    l2: int = 0,
    apic_ids: int = 0,
) -> bytes:
    head = struct.pack(
        "<QQIIIIQQIIQ",
        0x314D455449465041,
        NONCE,
        1,
        vcpus,
        len(steps),
        flags,
        en_flags,
        2**64 - 1,
        vector,
        l2,
        apic_ids,
    )
    return head.ljust(64, b"\0") + b"".join(s.encode(100 + n) for n, s in enumerate(steps))


@dataclass(frozen=True, slots=True)
class Record:
    tsc: int
    kind: int
    vcpu: int
    item: int
    a: int
    b: int


class Guest:
    """A running probe guest: its memory, control page and logs."""

    def __init__(self, process: subprocess.Popen[bytes], ram: mmap.mmap, console: Path) -> None:
        self.process, self.ram, self.console = process, ram, console

    def u32(self, gpa: int) -> int:
        return int(struct.unpack_from("<I", self.ram, gpa)[0])

    def u64(self, gpa: int) -> int:
        return int(struct.unpack_from("<Q", self.ram, gpa)[0])

    def put32(self, gpa: int, value: int) -> None:
        struct.pack_into("<I", self.ram, gpa, value)

    def put64(self, gpa: int, value: int) -> None:
        struct.pack_into("<Q", self.ram, gpa, value)

    def go(self) -> None:
        struct.pack_into("<I", self.ram, CONTROL + 20, self.u32(CONTROL + 20) + 1)

    def wait_state(self, *wanted: int) -> int:
        until = time.monotonic() + HANG_S
        while (state := self.u32(CONTROL + 16)) not in wanted:
            assert self.process.poll() is None, f"QEMU ended: {self.console.read_text()}"
            assert time.monotonic() < until, f"state {state}, console: {self.console.read_text()!r}, {self.log()}"
            assert state != PANIC, f"PANIC: {self.console.read_text()}"
            time.sleep(0.01)
        return state

    def run(self) -> list[Record]:
        """Let go a guest that is READY, wait for its end mark, return vCPU 0's log."""
        self.go()
        self.wait_state(DONE)
        until = time.monotonic() + HANG_S
        while self.u64(CONTROL + 32) != NONCE ^ 0xA5A5A5A5A5A5A5A5:
            assert time.monotonic() < until, "no end mark"
        return self.log()

    def wait_host(self, entries: int) -> int:
        """Wait until the guest is in its HOST item number ``entries`` (from 1); return the host index."""
        until = time.monotonic() + HANG_S
        while self.u32(CONTROL + 48) < entries or self.u32(CONTROL + 16) != HOST:
            assert time.monotonic() < until, self.log()
            time.sleep(0.01)
        return self.u32(CONTROL + 24)

    def monitor(self, command: str) -> None:
        """Give a command to QEMU's human monitor (the guest was started with monitor=True)."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def wait_log(self, kind: int, count: int, vcpu: int = 0) -> None:
        until = time.monotonic() + HANG_S
        while sum(r.kind == kind for r in self.log(vcpu)) < count:
            assert time.monotonic() < until, self.log(vcpu)
            time.sleep(0.01)

    def log(self, vcpu: int = 0) -> list[Record]:
        count = self.u32(CONTROL + 64 + 4 * vcpu)
        where = LOG + LOG_BYTES * vcpu
        return [Record(*r) for r in struct.iter_unpack("<QHHIQQ", self.ram[where : where + 32 * count])]


@contextmanager
def start_guest(
    elf: Path, folder: Path, items: bytes, *, machine: str = "microvm", vcpus: int | str = 1, monitor: bool = False
) -> Iterator[Guest]:
    """Boot it up to READY (or PANIC: then the caller sees it by wait_state).

    Time of a single vCPU is what it has executed, whether or not QEMU is let run: how many ticks of a timer come in a
    pause is not the machine's affair then.  Several vCPUs would take turns, and wait for each other through whole ones.
    """
    ram, initrd, console = folder / "ram", folder / "items", folder / "console.txt"
    initrd.write_bytes(items)
    ram.write_bytes(b"")
    with ram.open("r+b") as file:
        file.truncate(64 << 20)
        process = subprocess.Popen(
            [
                "qemu-system-x86_64", *MACHINES[machine],
                *(("-icount", "shift=7,sleep=off") if vcpus == 1 else ()),
                "-accel", "tcg", "-cpu", "max", "-smp", str(vcpus), "-m", "64",
                "-object", f"memory-backend-file,id=ram,size=64M,share=on,mem-path={ram}",
                "-display", "none", "-serial", f"file:{console}",
                "-kernel", str(elf), "-initrd", str(initrd),
                "-monitor", "stdio" if monitor else "none",
            ],
            stdin=subprocess.PIPE if monitor else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with mmap.mmap(file.fileno(), 64 << 20) as memory:
                yield Guest(process, memory, console)
        finally:
            process.kill()
            if process.stdin is not None:
                process.stdin.close()
            process.wait()
