# SPDX-License-Identifier: GPL-2.0-or-later
"""What one agent has on the host for all its plans: tracefs instances with everything on, and an idle VM.

All are slow to set up on an emulated host.  And each tracepoint that goes on or off, and the first VM (through
preempt_notifier_key), patches the kernel's text under a breakpoint (arch/x86/kernel/alternative.c:text_poke_bp_batch).
QEMU's TCG before 8.1 may translate that breakpoint on one vCPU while another removes it, and run the stale translation
for ever: the emulated host hangs in asm_exc_int3.  So the text is patched once, and recording is all that is switched.
"""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from harness.agent.gate.watch import WATCHED
from harness.agent.host.kernel_files import read_text
from harness.agent.host.tracing import Tracing, Watch, open_tracing, open_watch
from harness.agent.host.undo import Journal, undo
from harness.errors import ApfError

_KVM_CREATE_VM = 0xAE01  # include/uapi/linux/kvm.h
_JOURNALS = "/run/apf-serve-"


@dataclass(frozen=True, slots=True)
class Instances:
    """``tracing``: what is evidence; ``watch``: what the gated device is told."""

    tracing: Tracing
    watch: Watch


def open_instances(journal: Journal, name: str) -> Instances:
    """:raise Unsupported: see open_tracing."""
    tracing = open_tracing(journal, name)  # first: it makes the probes
    return Instances(tracing, open_watch(journal, f"{name}-gate", WATCHED))


def hold_vm() -> None:
    """Make a VM, for as long as this process lives; does nothing where there is no KVM.

    Not in a process that does anything else: each of its unmaps would be a kvm_unmap_hva_range in the trace.
    """
    with suppress(OSError):
        fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC), _KVM_CREATE_VM, 0)


class Resident:
    """Made when it is first asked for; a context manager that takes everything back."""

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._tried = False
        self._instances: Instances | None = None

    def __enter__(self) -> Resident:
        return self

    def __exit__(self, *exc: object) -> None:
        self._take_back()

    def instances(self) -> Instances | None:
        """The instances; None where there cannot be any: then the plan's own attempt says why."""
        if not self._tried:
            self._tried = True
            journal = self._open_journal()
            try:
                self._instances = open_instances(journal, f"apf-serve-{os.getpid()}")
            except (ApfError, OSError):
                journal.undo_all()
        return self._instances

    def note_journal(self, path: str) -> None:
        """Whoever takes us back takes back what this journal lists, too."""
        self._open_journal().change("journal", path=path)

    def _open_journal(self) -> Journal:
        if self._journal is None:
            clean_up()
            self._journal = Journal(f"{_JOURNALS}{os.getpid()}-{_started(os.getpid())}.journal")
        return self._journal

    def _take_back(self) -> None:
        if self._journal is not None and not self._journal.undo_all():
            with suppress(OSError):
                os.unlink(self._journal.path)


def clean_up(but: Collection[str] = ()) -> list[str]:
    """Take back what agents have left that were killed; what could not be, in words.

    :param but: journals of plans whose changes were tried just now, in vain.
    """
    problems: list[str] = []
    for path in glob.glob(f"{_JOURNALS}*.journal"):
        pid, _, started = path.removeprefix(_JOURNALS).removesuffix(".journal").partition("-")
        lives = _started(int(pid)) if pid.isdigit() else ""
        if pid.isdigit() and (not lives or (started and lives != started)):
            left = undo(path, but=but)
            problems += left
            if not left and not but:
                with suppress(FileNotFoundError):  # its own agent's parent was faster
                    os.unlink(path)
    return problems


def _started(pid: int) -> str:
    """When a process that lives was started, in clock ticks since boot: with its pid it is one process, and never the
    next that gets this pid; empty: it is dead."""
    try:
        state, *fields = read_text(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state in "ZX" else fields[18]  # proc(5): state is field 3, starttime field 22
