# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of a kernel log say that something is wrong.  The only list of them; pure, standard library only.

The texts are those of the kernel's own printks (6.1 and, where they changed, the release named):

    kernel/panic.c              panic, __warn ("WARNING: CPU: 1 PID: 2 at"; 6.18: "WARNING: file:line at ..., CPU#1:")
    lib/bug.c                   report_bug ("kernel BUG at")
    arch/x86/kernel/dumpstack.c __die_header ("Oops: 0002 [#1]"), arch/x86/kernel/traps.c (exceptions by name)
    arch/x86/mm/fault.c         show_fault_oops ("BUG: unable to handle", "BUG: kernel NULL pointer dereference")
    kernel/hung_task.c          check_hung_task
    kernel/watchdog.c           watchdog_timer_fn;  watchdog_hld.c;  workqueue.c wq_watchdog_timer_fn
    kernel/rcu/tree_stall.h     print_cpu_stall, print_other_cpu_stall, rcu_check_gp_kthread_starvation;  tasks.h
    kernel/locking/lockdep.c    print_*_bug;  lib/list_debug.c;  lib/ubsan.c
    mm/kasan/report.c           start_report;  mm/kfence/report.c;  mm/page_alloc.c bad_page
    block/blk-core.c            blk_status_to_str and print_req_error; fs/buffer.c buffer_io_error
    mm/page_io.c                end_swap_bio_read, end_swap_bio_write;  mm/oom_kill.c dump_header, __oom_kill_process

Errors of nbd devices (major 43) are no trouble: the agent answers with them where a plan says so (gate.json), and what
becomes of a device whose server is gone shows in the agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Blame(StrEnum):
    """Whose fault a line tells of."""

    KERNEL = "kernel"  # the kernel under test did something wrong
    GUEST = "guest"  # a known fault of the guest's own kernel: nothing can be concluded about the host's
    MACHINE = "machine"  # memory or a device did not do its part: nothing can be concluded about the kernel


@dataclass(frozen=True, slots=True)
class TroubleMark:
    """``pattern`` matches where the text of the message begins, after time stamp and caller id."""

    kind: str
    blame: Blame
    pattern: str


MARKS: tuple[TroubleMark, ...] = (
    TroubleMark("panic", Blame.KERNEL, r"Kernel panic - not syncing"),
    TroubleMark("kasan", Blame.KERNEL, r"BUG: (?:KASAN|KFENCE|KCSAN|KMSAN): "),
    TroubleMark(
        "lockup",
        Blame.KERNEL,
        r"(?:NMI )?watchdog: (?:BUG: soft lockup|Watchdog detected hard LOCKUP)|BUG: workqueue lockup",
    ),
    TroubleMark("hung-task", Blame.KERNEL, r"INFO: task .{1,40} blocked (?:in I/O wait )?for more than \d+ seconds"),
    TroubleMark(
        "rcu-stall",
        Blame.KERNEL,
        r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?stalls?|rcu: \w+ kthread (?:starved|timer wakeup)",
    ),
    TroubleMark("bug", Blame.KERNEL, r"kernel BUG at |BUG: "),
    # A breakpoint of text patching that is gone from memory was executed: the emulator's stale code (docs/adr/0005).
    TroubleMark("int3", Blame.MACHINE, r"Oops: int3: "),
    # The emulator's helper_check_io refuses an OUT at CPL 3 once the VMM has written the vCPU's state: its TSS is busy.
    TroubleMark("refused-out", Blame.MACHINE, r"workload: OUT was refused"),
    TroubleMark(
        "oops",
        Blame.KERNEL,
        r"Oops: |general protection fault|double fault: |stack segment: |invalid opcode: |divide error: ",
    ),
    TroubleMark("warning", Blame.KERNEL, r"WARNING: (?:CPU: \d+ PID: \d+|(?:\S+ )?at .+, CPU#\d+:)"),
    TroubleMark(
        "lockdep",
        Blame.KERNEL,
        r"WARNING: (?:possible |inconsistent |bad unlock|suspicious RCU|lock held when|[Nn]ested lock|held lock freed)",
    ),
    TroubleMark("list", Blame.KERNEL, r"list_(?:add|del) corruption|slab .*: corruption"),
    TroubleMark("ubsan", Blame.KERNEL, r"UBSAN: "),
    TroubleMark("oom", Blame.MACHINE, r".{0,40}invoked oom-killer: |oom-kill:|(?:Memory cgroup o|O)ut of memory: "),
    TroubleMark(
        "io-error",
        Blame.MACHINE,
        r"(?:blk_update_request: |print_req_error: )?(?:critical \w+(?: \w+)?|I/O|protection) error, dev (?!nbd)"
        r"|Buffer I/O error on dev (?!nbd)|(?:Read|Write)-error on swap-device \((?!43:)"
        r"|EXT4-fs error |Aborting journal on device",
    ),
)

# Demanding the time stamp (and allowing a level and CONFIG_PRINTK_CALLER's id) keeps programs that write to the same
# console from being taken for the kernel.
_PRINTK = r"(?:^|\r|\n)(?:<\d+>)?\[ *(?P<stamp>\d+\.\d+)\](?:\[ *[TC]\d+\])? "
_FINDING = re.compile(
    (_PRINTK + "(?P<line>" + "|".join(f"(?P<k{i}>{m.pattern})" for i, m in enumerate(MARKS)) + ")").encode()
)


WAITS_S: Mapping[str, float] = {"rcu-stall": 21.0, "lockup": 60.0, "hung-task": 180.0}
"""For how long nothing has happened, at least, when a host's kernel says so (guest-images/host/init sets it)."""
GUEST_WAITS_S: Mapping[str, float] = {"rcu-stall": 21.0, "lockup": 20.0, "hung-task": 120.0}
"""The same of a Linux guest, whose kernel has its own values (kernel/watchdog.c:get_softlockup_thresh, CONFIG_*)."""
STALLS = frozenset({"rcu-stall", "lockup"})
"""Findings behind which the kernel dumps what the processors do."""
DUMP_BYTES = 16384
_STALE_CODE = re.compile(
    rb"RIP: 0010:(?:asm_exc_int3|exc_int3|kprobe_int3_handler|poke_int3_handler)\+|\] +asm_exc_int3\+"
)
_INJECTED = "Kernel panic - not syncing: Host injected async #PF in interrupt disabled region"
_ENTRY = rb"RIP: 0010:(?:asm_exc_page_fault|error_entry|sync_regs|exc_page_fault)\+"
_BEFORE_THE_FLAGS_ARE_READ = re.compile(
    rb" <NMI>.*__kvm_handle_async_pf\+.* exc_nmi\+.*" + _ENTRY + rb".*</NMI>", re.DOTALL
)
"""The NMI has interrupted the entry of a page fault, and a page fault of its own handler reads the flags that are for
that (arch/x86/kernel/kvm.c:__kvm_handle_async_pf; guests from 6.12.115 on leave them alone in an NMI)."""
_LAST_NMI = re.compile(rb".*NMI backtrace for cpu \d+\r?\n(?P<shown>.*)", re.DOTALL)
"""What nmi_cpu_backtrace shows of the processor that the NMI has interrupted.  Where a sysrq is under way the panic's
own dump may be missing: __handle_sysrq puts console_loglevel back behind panic's console_verbose (drivers/tty/sysrq.c,
6.1)."""
_NAMES_A_CPU = re.compile(
    r"soft lockup - CPU#(\d+) |hard LOCKUP on cpu (\d+)|lockup - pool cpus=(\d+) |->cpu=(\d+)|[ {](\d+)-[.\w!]{4}(?= )"
)
_BEHIND_A_STALL = re.compile(rb"(?:\r?\n?(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? rcu: \t[^\n]*)*")
_STALLED_CPU = re.compile(rb" rcu: \t(\d+)-[.\w!]{4}: ")
"""rcu/tree_stall.h:print_cpu_stall_info: behind the line of the stall, one for each CPU."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One finding.  ``line`` lacks the time stamp; ``offset`` (bytes) is where it starts in the text searched."""

    kind: str
    blame: Blame
    line: str
    offset: int
    explains: bool = False
    """It is one explanation of what went otherwise than predicted: a run in which nothing did has nothing of it."""
    stamp: str = ""
    """When the kernel said it, by its own clock, as it is printed: "25.600000", in seconds."""
    cpus: tuple[int, ...] = ()
    """Of a stall: the processors that the kernel names as those on which nothing has happened."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.line}"


def find_trouble(text: bytes, start: int = 0) -> Trouble | None:
    """The first finding at or after byte ``start`` of a console or kernel log, or None.

    Only finished lines count, so that a growing file can be searched again and again without half a line being judged.
    """
    match = _FINDING.search(text, start)
    if match is None:
        return None
    end = text.find(b"\n", match.start("line"))
    if end < 0:
        return None
    mark = next(m for i, m in enumerate(MARKS) if match.group(f"k{i}") is not None)
    line = text[match.start("line") : end].decode(errors="replace").rstrip("\r")
    found = Trouble(mark.kind, mark.blame, line, match.start("line"), stamp=match.group("stamp").decode())
    begin = match.start("line")
    return _with_dump(found, text[max(0, begin - DUMP_BYTES) : begin], text[end : end + DUMP_BYTES])


def all_trouble(lines: Iterable[str]) -> tuple[Trouble, ...]:
    """The findings among the lines of a kernel log (time stamp and text each), at most one for each line."""
    kept = list(lines)
    found = []
    for number, line in enumerate(kept):
        trouble = find_trouble(f"{line}\n".encode())
        if trouble is not None:
            before = "\n".join(kept[max(0, number - 200) : number]).encode()[-DUMP_BYTES:]
            found.append(_with_dump(trouble, before, "\n".join(kept[number + 1 : number + 200]).encode()[:DUMP_BYTES]))
    return tuple(found)


def _in_the_entry_of_a_fault(before: bytes, following: bytes) -> bool:
    """Whether the NMI in which the guest panicked has interrupted the entry of a page fault: by the panic's own dump,
    or, where that was not shown, by the NMI's."""
    if b"Call Trace:" in following:
        return _BEFORE_THE_FLAGS_ARE_READ.search(following) is not None
    last = _LAST_NMI.match(before)
    rip = last and re.search(rb"RIP: [^\n]*", last["shown"])
    return bool(rip and re.match(_ENTRY, rip[0]))


def _with_dump(found: Trouble, before: bytes, following: bytes) -> Trouble:
    """A processor that is found in the handler of a breakpoint, again and again, executes one that is gone from memory:
    as "Oops: int3" is, it is the emulator's stale code.  A guest that met a page fault in an NMI, while a token waited
    for its handler, has taken it for one that was injected there."""
    if found.line.startswith(_INJECTED) and _in_the_entry_of_a_fault(before, following):
        return replace(found, kind="fault-in-an-nmi", blame=Blame.GUEST)
    if found.kind not in STALLS:
        return found
    if _STALE_CODE.search(following):
        return replace(found, kind="int3", blame=Blame.MACHINE)
    said = [name for names in _NAMES_A_CPU.findall(found.line) for name in names if name]
    if found.kind == "rcu-stall" and found.line.endswith(("on CPU", "on CPUs/tasks:")):
        behind = _BEHIND_A_STALL.match(following)
        said += (number.decode() for number in _STALLED_CPU.findall(behind[0] if behind else b""))
    return replace(found, cpus=tuple(sorted({int(number) for number in said})))
