# SPDX-License-Identifier: GPL-2.0-or-later
"""A tracefs instance of our own: KVM, block and scheduler events, and probes on handle_mm_fault."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from harness.agent.host.kernel_files import append_text, find_mount, read_once, read_text, write_text
from harness.agent.host.undo import Journal
from harness.contract.capture import CpuTraceStats, TraceStats
from harness.errors import Unsupported

KVM_EVENTS = (
    "kvm_entry", "kvm_exit", "kvm_page_fault", "kvm_try_async_get_page", "kvm_async_pf_not_present",
    "kvm_async_pf_repeated_fault", "kvm_async_pf_doublefault", "kvm_async_pf_completed", "kvm_async_pf_ready",
    "kvm_inj_exception", "kvm_inj_virq", "kvm_apic_accept_irq", "kvm_msr", "kvm_eoi", "kvm_vcpu_wakeup",
    "kvm_userspace_exit", "kvm_unmap_hva_range",
    # Of a guest that runs guests; kvm_nested_vmrun is what 5.10 calls kvm_nested_vmenter.
    "kvm_nested_vmenter", "kvm_nested_vmrun", "kvm_nested_vmexit", "kvm_nested_vmexit_inject",
    "kvm_nested_intr_vmexit",
)  # fmt: skip
NEEDED_EVENTS = ("kvm_page_fault", "kvm_try_async_get_page", "kvm_async_pf_not_present", "kvm_async_pf_ready")
PROBES = (
    ("mm_fault", "p:apf/mm_fault handle_mm_fault addr=$arg2:x64 flags=$arg3:x32"),
    ("mm_fault_ret", "r512:apf/mm_fault_ret handle_mm_fault ret=$retval:x32"),
)
WORK_PROBES = (
    ("work_start", "p:apf/work_start async_pf_execute"),
    ("work_end", "r512:apf/work_end async_pf_execute"),
)
"""Not essential: a kernel may have been built without a symbol for that static function."""
KICK_EVENT = "apf/kick"
KICK_PROBES = (("kick", "p:apf/kick __kvm_vcpu_kick"), ("kick", "p:apf/kick kvm_vcpu_kick"))
"""The first that the kernel has: it became an inline function that calls the other."""
UNMAP_EVENT = "kvm/kvm_unmap_hva_range"
UNMAP_PROBE = (
    "unmap_hva_range",
    "p:apf/unmap_hva_range kvm_mmu_notifier_invalidate_range_start start=+16($arg2):x64 end=+24($arg2):x64",
)
"""For kernels that have no ``UNMAP_EVENT`` on x86, those before 5.13: virt/kvm/kvm_main.c has the event in that very
function since.  The offsets are of include/linux/mmu_notifier.h:struct mmu_notifier_range of 5.10 to 5.12."""
READ_ENDS = ("block/block_bio_complete", "block/block_rq_complete")
"""Of a device without a request queue (dm-delay, zram), and of one with (nbd): block/blk-mq.c:blk_update_request clears
BIO_TRACE_COMPLETION of the bios of a request, because their completion has been traced already."""
SCHED_EVENTS = ("sched/sched_switch", "sched/sched_waking")
BOOT_WITHOUT = (
    "kvm/kvm_page_fault", "kvm/kvm_userspace_exit", "kvm/kvm_eoi", "apf/mm_fault", "apf/mm_fault_ret", KICK_EVENT,
    *READ_ENDS,
)  # fmt: skip
"""Not recorded while a Linux guest boots: its own business by the ten thousand, of which no prediction speaks."""
COUNTED = ("kvm/kvm_async_pf_not_present", "kvm/kvm_async_pf_ready", "kvm/kvm_async_pf_completed")
"""What outstanding() and uncompleted() count."""
_NOTHING = "common_pid < 0"
_KWORKERS = 'comm ~ "kworker*"'
_NAMES = 4096
"""Threads whose names the kernel keeps for the trace; 128 without us."""
MOST_TRACE = 96 << 20
"""Bytes of the trace as text that are kept.  A Linux guest that boots makes 60 million."""
_CPU = re.compile(rb"-\d+ +(?:\([ \d-]+\) +)?\[(\d+)\] ")
BUFFER_KIB = 65536
"""Per CPU, allocated by the kernel at once.  An entry has 30 to 90 bytes; booting a Linux guest makes 450 thousand."""
FULL = 24 << 20
"""Bytes in the buffers of all processors at which a run is ended, so that nothing of it is lost.  A probe guest's
program makes a tenth of it; one that exits for nothing, over and over, a megabyte a second.  As text it is three times
as much, which MOST_TRACE leaves room for."""
WATCH_KIB = 1024
"""Per CPU, of the instance that is read as it fills."""


class Tracing:
    """The instance.  ``start`` and ``stop`` switch recording; ``save`` copies everything into the capture."""

    def __init__(self, root: str, path: str, events: tuple[str, ...], counted: Watch | None = None) -> None:
        self.root = root
        self.path = path
        self.events = events  # "system/event" of those that are on
        self._counted = counted  # records COUNTED alone, beside

    def renew(self, without: Sequence[str] = ()) -> Tracing:
        """Empty and not recording; ``events`` of the one returned are those that it will record: all but ``without``.

        What is left out stays switched on, with a filter that lets nothing pass: see resident.py.
        """
        self.stop()
        with open(f"{self.path}/trace", "wb"):
            pass  # truncating it empties the buffers and their statistics
        for event in self.events:
            path = f"{self.path}/events/{event}/filter"
            closed = read_text(path).strip() == _NOTHING
            if closed != (event in without):
                write_text(path, _NOTHING if event in without else "0")
        return Tracing(self.root, self.path, tuple(e for e in self.events if e not in without), self._counted)

    def start(self) -> None:
        if self._counted is not None:
            self._counted.start({})
        write_text(f"{self.path}/tracing_on", "1")

    def stop(self) -> None:
        write_text(f"{self.path}/tracing_on", "0")
        if self._counted is not None:
            self._counted.stop()

    def text(self) -> str:
        """The trace so far (reading it does not stop it)."""
        return read_text(f"{self.path}/trace")

    def entered(self) -> bool:
        """Whether the trace shows an entry of the guest."""
        return " kvm_entry: " in self.text()

    def outstanding(self) -> int:
        """Async page faults that are not ready yet, counted in the trace so far."""
        return outstanding(self._short())

    def uncompleted(self) -> int:
        """Async page faults whose worker has not completed them, counted in the same way."""
        return uncompleted(self._short())

    def _short(self) -> str:
        """What is counted of the trace.  The kernel prints the trace anew for each reader, and a vCPU whose halts end
        at once makes thousands of lines a second: who looked for these few in all of it would never come to its end.
        """
        return self.text() if self._counted is None else read_text(f"{self._counted.path}/trace")

    def follow(self, tids: Sequence[int], device: str | None) -> None:
        """Restrict sched_switch and sched_waking to these threads, the fault probes to them and kworkers, that of kicks
        to kworkers, ends of bios to the device.

        :param device: "major,minor" of the pages' device; None: there is none, and no end of a bio matters.
        """
        switch = " || ".join(f"prev_pid == {t} || next_pid == {t}" for t in tids)
        probes = " || ".join(f"common_pid == {t}" for t in tids) + f" || {_KWORKERS}"
        woken = " || ".join(f"pid == {t}" for t in tids)
        for event in reversed(self.events):  # sched_waking first: who is seen to sleep is seen to be woken
            if event in SCHED_EVENTS:
                write_text(f"{self.path}/events/{event}/filter", switch if event == SCHED_EVENTS[0] else woken)
            elif event.startswith("apf/mm_fault"):
                write_text(f"{self.path}/events/{event}/filter", probes)
            elif event == KICK_EVENT:
                write_text(f"{self.path}/events/{event}/filter", _KWORKERS)
            elif event in READ_ENDS:
                write_text(f"{self.path}/events/{event}/filter", _NOTHING if device is None else _of_device(device))

    def held(self) -> int:
        """Bytes in the buffers of all processors (kernel/trace/trace.c:tracing_stats_read)."""
        return sum(int(_counted(f"{self.path}/per_cpu/{cpu}/stats")["bytes"]) for cpu in self._cpus())

    def save(self, path: str) -> TraceStats:
        """Copy the trace to ``path``, its first MOST_TRACE bytes if it is longer; returns the statistics of each CPU.

        A vCPU whose halts end at once, over and over, fills the buffers within seconds.
        """
        with open(f"{self.path}/trace", "rb") as source, open(path, "wb") as target:
            left = MOST_TRACE
            while left > 0 and (chunk := source.read(min(left, 1 << 20))):
                target.write(chunk)
                left -= len(chunk)
            cut = not left and bool(source.read(1))
        return _cut_at_a_line(path, self.stats()) if cut else self.stats()

    def stats(self) -> TraceStats:
        """What the kernel counted per CPU (kernel/trace/trace.c:tracing_stats_read)."""
        found = {}
        for cpu in self._cpus():
            numbers = _counted(f"{self.path}/per_cpu/{cpu}/stats")
            wanted = ("entries", "overrun", "commit overrun", "dropped events")
            found[int(cpu.removeprefix("cpu"))] = CpuTraceStats(*(int(numbers[name]) for name in wanted))
        return TraceStats(dict(sorted(found.items())))

    def _cpus(self) -> list[str]:
        return os.listdir(f"{self.path}/per_cpu")


def _counted(path: str) -> dict[str, str]:
    """The lines of a per_cpu/cpuN/stats."""
    lines = (line.split(":") for line in read_once(path).splitlines())
    return {k.strip(): v.strip() for k, v in lines}


def _cut_at_a_line(path: str, stats: TraceStats) -> TraceStats:
    """End the file with a whole line; the statistics say how many events of each CPU it has not."""
    kept: Counter[int] = Counter()
    with open(path, "r+b") as file:
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            if found := _CPU.search(line):
                kept[int(found[1])] += 1
        file.truncate(whole)
    return TraceStats({n: replace(cpu, left_out=cpu.entries - kept[n]) for n, cpu in stats.cpus.items()})


def _of_device(number: str) -> str:
    """The filter for a block event; the kernel's own dev_t has 20 bits of minor (include/linux/kdev_t.h)."""
    major, minor = number.split(",")
    return f"dev == {int(major) << 20 | int(minor)}"


@dataclass(frozen=True, slots=True)
class Watch:
    """A small instance of its own, whose trace_pipe is read while the guest runs; ``events``: those that are on."""

    path: str
    events: tuple[str, ...]

    @property
    def pipe(self) -> str:
        return f"{self.path}/trace_pipe"

    def start(self, filters: Mapping[str, str]) -> None:
        """Record what passes, from an empty buffer on."""
        write_text(f"{self.path}/tracing_on", "0")
        with open(f"{self.path}/trace", "wb"):
            pass
        self.filter(filters)
        write_text(f"{self.path}/tracing_on", "1")

    def filter(self, filters: Mapping[str, str]) -> None:
        """From now on only this passes."""
        for event in self.events:
            if event in filters:
                write_text(f"{self.path}/events/{event}/filter", filters[event])

    def stop(self) -> None:
        write_text(f"{self.path}/tracing_on", "0")


def open_watch(journal: Journal, name: str, wanted: Sequence[str]) -> Watch:
    """Make the instance with those of the ``wanted`` events that this host has; not recording yet.

    :raise Unsupported: no tracefs.
    """
    path = f"{tracing_root()}/instances/{name}"
    journal.change("instance", path=path)
    os.mkdir(path)
    write_text(f"{path}/tracing_on", "0")
    write_text(f"{path}/trace_clock", "mono")
    write_text(f"{path}/buffer_size_kb", str(WATCH_KIB))
    events = tuple(e for e in wanted if os.path.isdir(f"{path}/events/{e}"))
    for event in events:
        write_text(f"{path}/events/{event}/enable", "1")
    return Watch(path, events)


def outstanding(trace: str) -> int:
    """Tokens and halts that began in this trace and are not ready; the wake-all (token ~0) is the end of none."""
    ready = trace.count(" kvm_async_pf_ready: token ") - trace.count(" kvm_async_pf_ready: token 0xffffffff ")
    return trace.count(" kvm_async_pf_not_present: token ") - ready


def uncompleted(trace: str) -> int:
    """Tokens and halts that began in this trace and that no worker has completed; those that were cancelled too."""
    return trace.count(" kvm_async_pf_not_present: token ") - trace.count(" kvm_async_pf_completed: ")


def tracing_root() -> str:
    """:raise Unsupported: no tracefs is mounted."""
    root = find_mount("tracefs")
    if not root:
        raise Unsupported("tracefs is not mounted on the host")
    return root


def open_tracing(journal: Journal, name: str) -> Tracing:
    """Make the instance with all events that this host has; clock mono, not recording yet.

    :raise Unsupported: no tracefs, or no KVM events (kvm not loaded).
    """
    root = tracing_root()
    missing = [e for e in NEEDED_EVENTS if not os.path.isdir(f"{root}/events/kvm/{e}")]
    if missing:
        raise Unsupported(f"the host's kernel has no trace event kvm:{missing[0]} (is kvm loaded?)")
    if os.path.exists(names := f"{root}/saved_cmdlines_size"):
        journal.write(names, str(_NAMES))  # else threads that have not been traced for long have no name: "<...>"
    probes = _make_probes(journal, root)
    path = f"{root}/instances/{name}"
    journal.change("instance", path=path)
    os.mkdir(path)
    write_text(f"{path}/tracing_on", "0")
    write_text(f"{path}/trace_clock", "mono")
    write_text(f"{path}/buffer_size_kb", str(BUFFER_KIB))
    # When the buffer is full the newest events are dropped, so that what there is has no hole in it.
    write_text(f"{path}/options/overwrite", "0")
    wanted = [*(f"kvm/{e}" for e in KVM_EVENTS), "block/block_bio_queue", *READ_ENDS, *SCHED_EVENTS, *probes]
    events = tuple(e for e in wanted if os.path.isdir(f"{path}/events/{e}"))
    for event in events:
        write_text(f"{path}/events/{event}/enable", "1")
    return Tracing(root, path, events, open_watch(journal, f"{name}-count", COUNTED))


def _make_probes(journal: Journal, root: str) -> list[str]:
    """The fault probes, where the host has kprobe events; without them the capture has less, and facts.json says so."""
    if not os.path.exists(f"{root}/kprobe_events"):
        return []
    made = []
    for name, definition in PROBES:
        if os.path.isdir(f"{root}/events/apf/{name}"):
            raise Unsupported(f"probe apf/{name} exists already: another agent is at work on this host")
        journal.change("kprobe", tracing=root, name=f"apf/{name}")
        append_text(f"{root}/kprobe_events", definition + "\n")
        made.append(f"apf/{name}")
    unmaps = () if os.path.isdir(f"{root}/events/{UNMAP_EVENT}") else (UNMAP_PROBE,)
    for name, definition in (*WORK_PROBES, *unmaps, *KICK_PROBES):
        if f"apf/{name}" in made:
            continue
        journal.change("kprobe", tracing=root, name=f"apf/{name}")
        with suppress(OSError):
            append_text(f"{root}/kprobe_events", definition + "\n")
            made.append(f"apf/{name}")
    return made
