# SPDX-License-Identifier: GPL-2.0-or-later
"""The device under the pages: gated (nbd), dm-delay over a disk, or zram; as swap, or under the RAM file."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import uuid
from dataclasses import dataclass

from harness.agent.gate.control import Gate
from harness.agent.gate.device import open_gate
from harness.agent.host import dm, syscalls
from harness.agent.host.kernel_files import PAGE, read_text, selected, write_text
from harness.agent.host.others_swap import highest_priority
from harness.agent.host.undo import Journal
from harness.contract.plan import Swap, SwapKind
from harness.errors import InfraFault, Unsupported

_BLKGETSIZE64 = 0x80081272
_SIGNATURE = b"SWAPSPACE2"


@dataclass(frozen=True, slots=True)
class Device:
    """A source of pages that the agent has set up.  ``path``: of a block device, "" for missing pages; ``name``: of the
    device mapper, "" for others; ``backing``: the disk below it."""

    path: str
    name: str = ""
    backing: str = ""
    sectors: int = 0
    gate: Gate | None = None

    @property
    def holds(self) -> bool:
        """Whether reads can be held."""
        return self.gate is not None or self.name != ""

    def set_delay(self, journal: Journal, read_ms: int) -> None:
        """dm-delay: delay reads by ``read_ms`` from now; reads held so far go out at once.  Others: no effect."""
        if self.name:
            if read_ms:
                journal.change("hold", name=self.name, device=self.backing, sectors=self.sectors)
            dm.set_delay(self.name, self.backing, self.sectors, read_ms)

    def hold(self, journal: Journal) -> None:
        """Hold every read from now on."""
        if self.gate is not None:
            self.gate.ask("freeze")
        self.set_delay(journal, dm.FROZEN_MS)

    def go_on(self, journal: Journal, read_ms: int) -> None:
        """No longer: reads end as the plan says."""
        if self.gate is not None:
            self.gate.ask("thaw")
        self.set_delay(journal, read_ms)

    def open(self, journal: Journal) -> None:
        """Let go every read that is held, and hold no more."""
        if self.gate is not None:
            self.gate.open()
        self.set_delay(journal, 0)


def open_device(journal: Journal, swap: Swap, disk: str, name: str, no_disk: str = "") -> Device:
    """Set the plan's device up, reads not delayed yet, and rotational or not as planned.

    :param no_disk: why there is no disk.
    :raise Unsupported: the host has no nbd, no dm-delay, no zram, or no disk was given.
    """
    match swap.kind:
        case SwapKind.GATED:
            return _open_gated(journal, swap)
        case SwapKind.ZRAM:
            return _open_zram(journal, swap)
        case _:
            if not disk:
                raise Unsupported(f"dm-delay needs a disk: {no_disk or 'none was given (--disk)'}")
            return _open_delay(journal, swap, disk, name)


_GATED_QUEUE = {
    "max_sectors_kb": "1024",  # one bio, one request; larger ones write a RAM file faster
    "nomerges": "2",  # each bio a request of its own: so each has an end of its own
}


def _open_gated(journal: Journal, swap: Swap) -> Device:
    disk = open_gate(journal, swap.size_mib << 20)
    name = f"nbd{disk.index}"
    # The queue outlives the connection, as a disk's would.
    for attribute, value in {**_GATED_QUEUE, "rotational": str(int(swap.rotational))}.items():
        journal.write(f"/sys/block/{name}/queue/{attribute}", value)
    scheduler = f"/sys/block/{name}/queue/scheduler"
    if "none" in read_text(scheduler).split():  # a scheduler would send requests in an order of its own
        journal.write(scheduler, "none", selected(read_text(scheduler)))
    attribute, value = dm.READ_AHEAD
    journal.write(f"/sys/block/{name}/queue/{attribute}", value)
    return Device(disk.path, gate=disk.gate)


def _set_rotational(journal: Journal, disk: str, rotational: bool) -> None:
    """Of the disk itself, never of a device above it, and before swapon until after swapoff.

    Each new dm table takes the flag from the disk again (drivers/md/dm-table.c:dm_table_set_restrictions), and swapoff
    decrements nr_rotate_swap by what it finds then (mm/swapfile.c, 5.10 to 6.12): if that is not what swapon found, VMA
    read-ahead stays off on this host until it boots again.
    """
    name = os.path.basename(os.path.realpath(disk))
    if not os.path.isdir(f"/sys/block/{name}"):
        raise Unsupported(f"{disk} is not a whole disk")
    journal.write(f"/sys/block/{name}/queue/rotational", str(int(rotational)))


def _open_delay(journal: Journal, swap: Swap, disk: str, name: str) -> Device:
    wanted = swap.size_mib << 11
    sectors = block_bytes(disk) >> 9
    if sectors < wanted:
        raise Unsupported(f"{disk} has {sectors >> 11} MiB, the plan wants {swap.size_mib}")
    _set_rotational(journal, disk, swap.rotational)
    journal.change("dm", name=name)
    path = dm.create(name, disk, wanted, 0)
    return Device(path, name, disk, wanted)


def _open_zram(journal: Journal, swap: Swap) -> Device:
    try:
        subprocess.run(["modprobe", "-q", "zram"], check=False, timeout=30)
    except OSError:
        pass  # no modprobe: then it is built in, or it is not there
    name = "zram0"
    if not os.path.exists(f"/sys/block/{name}"):
        raise Unsupported("the host's kernel has no zram")
    if read_text(f"/sys/block/{name}/disksize").strip() != "0":
        raise Unsupported(f"{name} is in use on this host")
    _set_rotational(journal, name, swap.rotational)
    journal.change("zram", name=name)
    write_text(f"/sys/block/{name}/disksize", str(swap.size_mib << 20))
    return Device(f"/dev/{name}")


def start_swap(journal: Journal, device: Device) -> None:
    """Write the signature and turn swapping to it on, before any other swap: what is swapped out now goes there.

    :raise OSError:
    :raise Unsupported: another swap area has the highest priority there is.
    """
    if highest_priority() >= syscalls.SWAP_FLAG_PRIO_MASK:
        raise Unsupported(
            f"a swap area of the host has the priority {syscalls.SWAP_FLAG_PRIO_MASK}: ours cannot come first"
        )
    write_signature(device.path)
    journal.change("swap", device=device.path)
    syscalls.swapon(device.path, syscalls.SWAP_FLAG_PRIO_MASK)


def write_signature(path: str) -> None:
    """An empty swap area over the whole device (include/linux/swap.h:union swap_header, version 1)."""
    pages = block_bytes(path) // PAGE
    header = bytearray(PAGE)
    struct.pack_into("<III16s", header, 1024, 1, pages - 1, 0, uuid.uuid4().bytes)
    header[PAGE - len(_SIGNATURE) :] = _SIGNATURE
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, header, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def mount_ext4(journal: Journal, device: Device, target: str) -> None:
    """An empty ext4 on the device, mounted at ``target``, so that nothing but our file does I/O.

    No journal, no room for growth, no second superblock, all metadata in one place: the file can lie in one piece.
    Whole pages as blocks; few inodes, because their tables are written now.

    :raise Unsupported: mkfs.ext4 is not on the host. :raise InfraFault: it failed.
    """
    argv = [
        "mkfs.ext4", "-q", "-F", "-b", str(PAGE), "-N", "16", "-m", "0",
        "-O", "^has_journal,^resize_inode,sparse_super2",
        "-E", "lazy_itable_init=0,nodiscard,packed_meta_blocks=1,num_backup_sb=0", device.path,
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise Unsupported("mkfs.ext4 is not installed on the host") from None
    if done.returncode:
        raise InfraFault(f"{' '.join(argv)}: {done.stderr.strip()}")
    if not os.path.isdir(target):
        journal.change("directory", path=target)
        os.mkdir(target)
    journal.change("mount", path=target)
    # stripe=1 is none: mkfs takes a stripe from the device, of 128 KiB on kernels from 6.12 on, and
    # fs/ext4/mballoc.c:ext4_mb_scan_aligned then gives a file its first stripe apart from the rest.
    options = "noinit_itable,stripe=1"
    try:
        # The thread ext4lazyinit would read block bitmaps (fs/ext4/super.c:ext4_register_li_request) at any time.
        syscalls.mount(device.path, target, "ext4", f"{options},no_prefetch_block_bitmaps")
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        # 5.10 to 5.12: does not prefetch unless asked to, and does not know the option.
        syscalls.mount(device.path, target, "ext4", options)


def block_bytes(path: str) -> int:
    """Size in bytes of a block device or a file. :raise OSError:"""
    fd = os.open(path, os.O_RDONLY)
    try:
        if os.path.isfile(path):
            return os.fstat(fd).st_size
        return int(struct.unpack("<Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0])
    finally:
        os.close(fd)


def device_number(path: str) -> str:
    """``major,minor`` as the block trace events print it."""
    number = os.stat(path).st_rdev
    return f"{os.major(number)},{os.minor(number)}"
