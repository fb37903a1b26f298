# SPDX-License-Identifier: GPL-2.0-or-later
"""How many works of asynchronous page faults there are when no VM is, and how many contexts of a userfaultfd that is no
more: slabs of their own tell."""

from __future__ import annotations

import os
from contextlib import suppress
from glob import glob

from harness.agent.host.kernel_files import read_text, write_text

SLAB = "/sys/kernel/slab/kvm_async_pf"
"""virt/kvm/async_pf.c:kvm_async_pf_init.  A link where slabs of one size are one (mm/slub.c:sysfs_slab_alias): then
most of what is in it is somebody else's.  Booted with slab_nomerge each has its own."""
CONTEXTS = "/sys/kernel/slab/userfaultfd_ctx_cache"
"""fs/userfaultfd.c:userfaultfd_init.  The same."""
FILE = "anon_inode:[userfaultfd]"
"""What a descriptor of one is a link to."""
DESCRIPTORS = "/proc/[0-9]*/fd/*"
_COUNTS = ("objects", "objects_partial")
"""All that are in use, and, without CONFIG_SLUB_DEBUG, those in slabs that have room left."""


def works_left(debugfs: str) -> int | None:
    """Objects of the slab that are in use; none is when each work was freed.

    :param debugfs: where debugfs is mounted, "" if it is not: it tells of other vCPUs, whose works would count.
    :return: None: nobody can tell (the slab is not KVM's own, there is a vCPU, or the kernel counts nothing).
    :raise OSError: the slab cannot be shrunk.
    """
    if not debugfs or _vcpus(debugfs):
        return None
    return _in_use(SLAB)


def contexts_left() -> int | None:
    """Contexts of userfaultfds that nobody has open: one is freed with its last descriptor, when no address space has
    it and no fault sleeps for it (fs/userfaultfd.c:userfaultfd_ctx_put).

    :return: None: nobody can tell (the slab is not their own, or the kernel counts nothing).
    :raise OSError: the slab cannot be shrunk.
    """
    found = _in_use(CONTEXTS)
    return None if found is None else max(0, found - _open_userfaultfds())


def _open_userfaultfds() -> int:
    """One that several processes have is counted for each."""
    found = 0
    for link in glob(DESCRIPTORS):
        with suppress(OSError):  # the process has ended
            found += os.readlink(link) == FILE
    return found


def _in_use(slab: str) -> int | None:
    count = next((path for name in _COUNTS if os.path.exists(path := f"{slab}/{name}")), None)
    if count is None or os.path.islink(slab):
        return None
    # A CPU's own slab is in use as a whole until it is flushed (mm/slub.c:kmem_cache_shrink).
    write_text(f"{slab}/shrink", "1")
    return int(read_text(count).split()[0])


def _vcpus(debugfs: str) -> bool:
    """Each VM has a directory there, and each of its vCPUs one in it (virt/kvm/kvm_main.c:kvm_create_vm_debugfs).  The
    agent's own VM, which keeps the processor's extension on, has none."""
    return bool(glob(f"{debugfs}/kvm/*/*/"))
