# SPDX-License-Identifier: GPL-2.0-or-later
"""How many works of asynchronous page faults there are when no VM is: KVM's own slab of them tells."""

from __future__ import annotations

import os
from glob import glob

from harness.agent.host.kernel_files import read_text, write_text

SLAB = "/sys/kernel/slab/kvm_async_pf"
"""virt/kvm/async_pf.c:kvm_async_pf_init.  A link where slabs of one size are one (mm/slub.c:sysfs_slab_alias): then
most of what is in it is somebody else's.  Booted with slab_nomerge each has its own."""
_COUNTS = ("objects", "objects_partial")
"""All that are in use, and, without CONFIG_SLUB_DEBUG, those in slabs that have room left."""


def works_left(debugfs: str) -> int | None:
    """Objects of the slab that are in use; none is when each work was freed.

    :param debugfs: where debugfs is mounted, "" if it is not: it tells of other vCPUs, whose works would count.
    :return: None: nobody can tell (the slab is not KVM's own, there is a vCPU, or the kernel counts nothing).
    :raise OSError: the slab cannot be shrunk.
    """
    if not debugfs or os.path.islink(SLAB) or _vcpus(debugfs):
        return None
    count = next((path for name in _COUNTS if os.path.exists(path := f"{SLAB}/{name}")), None)
    if count is None:
        return None
    # A CPU's own slab is in use as a whole until it is flushed (mm/slub.c:kmem_cache_shrink).
    write_text(f"{SLAB}/shrink", "1")
    return int(read_text(count).split()[0])


def _vcpus(debugfs: str) -> bool:
    """Each VM has a directory there, and each of its vCPUs one in it (virt/kvm/kvm_main.c:kvm_create_vm_debugfs).  The
    agent's own VM, which keeps the processor's extension on, has none."""
    return bool(glob(f"{debugfs}/kvm/*/*/"))
