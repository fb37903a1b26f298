# SPDX-License-Identifier: GPL-2.0-or-later
"""On an emulated host no vCPU thread runs on its first CPU: there QEMU loses what VMRUN sets.

QEMU's target/i386/tcg/fpu_helper.c:cpu_set_fpus (7.2) clears IGNNE# whenever a processor loads its FPU's
state, by cpu_clear_ignne, which rewrites hflags2 of the *first* processor, from whichever thread, and nothing locks it.
What that one sets in the same moment is lost: HF2_NPT_MASK of helper_vmrun, and the guest's tables are read from the
host's memory (a guest that shuts down although nothing was injected); HF2_GIF_MASK; HF2_VINTR_MASK.  On a processor
that never executes VMRUN, STGI or CLGI the word does not change, and writing it back changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager

from harness.agent.host.kernel_files import read_text
from harness.contract.capture import EMULATED


def allowed_cpus(cmdline: str, cpus: Set[int]) -> Set[int]:
    """Those of ``cpus`` on which guests may run; ``cmdline`` is the kernel's.

    An emulated host with two CPUs keeps both: two vCPUs on one could not run at once.
    """
    rest = cpus - {0}
    return rest if EMULATED in cmdline.split() and len(rest) > 1 else cpus


@contextmanager
def guest_cpus() -> Iterator[None]:
    """What this thread starts within runs on the CPUs that guests may have."""
    ours = os.sched_getaffinity(0)
    allowed = allowed_cpus(read_text("/proc/cmdline"), ours)
    if allowed == ours:
        yield
        return
    os.sched_setaffinity(0, allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)
