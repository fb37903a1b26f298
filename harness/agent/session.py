# SPDX-License-Identifier: GPL-2.0-or-later
"""What every scenario needs on the host before and after its guest: checks, sysctls, device, cgroup, tracing, facts."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import glob
from typing import assert_never

from harness.agent.capture_folder import Capture
from harness.agent.gate.faults import open_faults
from harness.agent.gate.watch import WORKER_FAULT, filters
from harness.agent.guest.boot_room import check_boot_room
from harness.agent.guest.qemu import Guest
from harness.agent.host import swap as swap_device
from harness.agent.host.cgroup import ScenarioCgroup, make_cgroup
from harness.agent.host.host_facts import host_facts, qemu_version
from harness.agent.host.kernel_files import available_mib, need_file, read_text, selected, wait_until, write_text
from harness.agent.host.others_swap import SwappedByOthers, misplaced
from harness.agent.host.points import CAPTURED, forget_points, reached_points
from harness.agent.host.read_counters import snapshot, thread_state
from harness.agent.host.resident import Instances, open_instances
from harness.agent.host.swap import Device
from harness.agent.host.trace_dat import write_trace_dat
from harness.agent.host.tracing import BOOT_WITHOUT, Tracing, Watch
from harness.agent.host.undo import Journal
from harness.agent.host.userfault import has_userfaultfd
from harness.agent.pages.memory_left import memory_left
from harness.agent.pages.page_content import planned_content
from harness.agent.pages.pageout import PreconditionFailed
from harness.agent.pages.slots_left import slots_left
from harness.agent.ram.choose import ram_of
from harness.agent.ram.guest_ram import GuestRam
from harness.contract.capture import NO_TRACE_DAT, TRACE_DAT, Facts, HostFacts, OfRun, RunFacts
from harness.contract.host_needs import NO_DISK, HostOffers, hangs_on_version, lacks, without_gate
from harness.contract.plan import GuestKind, Plan, SwapKind, to_json, vcpu_ids
from harness.contract.service import AgentOptions
from harness.contract.words import Backing
from harness.errors import InfraFault, Unsupported

_THP = "/sys/kernel/mm/transparent_hugepage/enabled"
_KSM = "/sys/kernel/mm/ksm/run"
_NAME = re.compile(r"[A-Za-z0-9_]+")
BOOT_WORKLOAD = "boot"
ENTRY_SECONDS = 10.0
"""A guest that spins is entered anew at the latest at the next tick of the host's timer."""
_LRU_GEN = "/sys/kernel/mm/lru_gen/enabled"


@dataclass(slots=True)
class Session:
    """One scenario on this host: what has been set up so far."""

    plan: Plan
    options: AgentOptions
    capture: Capture
    journal: Journal
    resident: Instances | None = None  # of an agent that serves many plans
    facts: HostFacts | None = None
    device: Device | None = None
    group: ScenarioCgroup | None = None
    tracing: Tracing | None = None
    watch: Watch | None = None
    gate_told: bool = False
    ram_path: str = ""
    others: SwappedByOthers | None = None
    run: RunFacts | None = None

    @property
    def ram(self) -> GuestRam:
        """The memory behind guest RAM."""
        return ram_of(self.plan.memory.backing)

    @property
    def qemu(self) -> str:
        """The QEMU for the plan's guest: Debian's build with less in it (KVM only, no isa-debugcon for the results of
        Linux guests) starts in half the time, where it is there."""
        guest, small = self.plan.guest, f"{self.options.qemu}-microvm"
        fits = guest.kind is GuestKind.PROBE and guest.machine == "microvm" and self.options.accel == "kvm"
        return small if fits and shutil.which(small) else self.options.qemu

    def note_left(self) -> None:
        """left.json, once QEMU was reaped."""
        debugfs = self.facts.debugfs if self.facts else ""
        left = memory_left(self.group, self.ram_path, debugfs)
        self.write_record("left.json", replace(left, slots=slots_left(self._swap_device)))

    @property
    def name(self) -> str:
        return f"apf-{self.plan.nonce & 0xFFFFFFFF:08x}"

    def write_record(self, name: str, record: OfRun) -> None:
        """A record of the capture, with the nonce of this run."""
        self.capture.write_json(name, replace(record, nonce=self.plan.nonce))

    def prepare_host(self) -> None:
        """Everything up to the guest's start. :raise Unsupported: this host cannot; nothing has been changed then."""
        facts = self.facts = host_facts()
        self.write_record("facts.json", Facts(facts))
        self._do_without_gate(facts)
        self._check_needs(facts)
        self._settings(facts)
        if self.plan.guest.kind is GuestKind.HOST_PROGRAM:
            return
        traced = self.options.accel == "kvm"
        if traced:
            # Before the device: its server reads trace_pipe as long as it lives, and an instance that is read cannot be
            # removed (kernel/trace/trace.c:__remove_instance), so it is to be taken back after it.
            boots = self.plan.guest.kind is GuestKind.LINUX and self.plan.guest.workload == BOOT_WORKLOAD
            instances = self.resident or open_instances(self.journal, self.name)
            self.tracing, self.watch = instances.tracing.renew(BOOT_WITHOUT if boots else ()), instances.watch
        if self.plan.swap.kind not in (SwapKind.NONE, SwapKind.USERFAULT):
            self.device = swap_device.open_device(
                self.journal, self.plan.swap, self.options.disk, self.name, self.options.no_disk
            )
            self.ram_path = self.ram.set_up(self.journal, self.device, self.plan, f"{self.options.scratch}/{self.name}")
        if traced:
            self.group = make_cgroup(self.journal, self.name)

    def _do_without_gate(self, facts: HostFacts) -> None:
        """Where there is no nbd, dm-delay performs the default rule: plan.json says then that it was used."""
        plain = without_gate(self.plan)
        if self.plan.swap.kind is SwapKind.GATED and not facts.nbd and plain is not None:
            self.plan = plain
            self.capture.write_text("plan.json", to_json(plain))

    def _check_needs(self, facts: HostFacts) -> None:
        guest, options = self.plan.guest, self.options
        qemu = qemu_version(options.qemu) if hangs_on_version(self.plan) else shutil.which(options.qemu) or ""
        offers = HostOffers(
            facts, qemu=qemu, userfaultfd=self._has_userfaultfd(),
            memory_mib=available_mib(), disk=options.disk, accel=options.accel, memory_limit_mib=options.memory_mib,
        )  # fmt: skip
        lack = next(lacks(self.plan, offers), None)
        if lack is not None:
            more = f": {options.no_disk}" if lack.what == NO_DISK and options.no_disk else ""
            raise Unsupported(f"{lack}{more}")
        for parameter, _ in (*self.plan.kernel_params, *self.plan.kernel_params_at_go):
            path = _parameter_path(parameter)
            if not os.path.exists(path):
                raise Unsupported(f"the host's kernel has no module parameter {parameter}")
            if not os.stat(path).st_mode & stat.S_IWUSR:
                raise Unsupported(f"the module parameter {parameter} can be set only when its module is loaded")
        match guest.kind:
            case GuestKind.HOST_PROGRAM:
                need_file(options.program, "--program")
            case GuestKind.PROBE:
                need_file(options.probe, "--probe")
            case GuestKind.LINUX:
                need_file(options.guest_kernel, "--guest-kernel")
                need_file(options.guest_initrd, "--guest-initrd")
                check_boot_room(options.guest_kernel, options.guest_initrd, guest.memory_mib)
            case _:
                assert_never(guest.kind)

    def _has_userfaultfd(self) -> bool:
        return self.plan.swap.kind is SwapKind.USERFAULT and has_userfaultfd()

    def _settings(self, facts: HostFacts) -> None:
        """Host-wide settings; each is put back by undo."""
        if os.path.exists(_THP):
            self.journal.write(_THP, "never", selected(read_text(_THP)))
        if os.path.exists(_KSM):
            self.journal.write(_KSM, "0")
        if os.path.exists(_LRU_GEN):
            # The classic LRU lists: reclaim of the pool group finds the pages rotated to the inactive tail first.
            self.journal.write(_LRU_GEN, "0x0000")
        self.journal.write("/proc/sys/vm/page-cluster", "0")
        self.journal.write("/proc/sys/vm/swappiness", "200" if facts.memory_reclaim else "100")
        if self.plan.guest.realtime:
            # From 6.12 on: else workers are given time while the vCPU's thread runs.
            for path in sorted(glob(f"{facts.debugfs}/sched/fair_server/cpu*/runtime") if facts.debugfs else ()):
                self.journal.write(path, "0")
        for parameter, value in self.plan.kernel_params:
            self.journal.write(_parameter_path(parameter), value)
        if facts.debugfs and os.path.exists(warned := f"{facts.debugfs}/clear_warn_once"):
            write_text(warned, "1")  # a WARN_ON_ONCE that this boot has reached before is told again
        forget_points()

    def note_guest(self, qemu_pid: int, qemu_version: str, vcpu_tids: tuple[int, ...]) -> None:
        """Add what is known only now of the guest to facts.json."""
        if self.facts is None:
            raise InfraFault("a guest runs on a host that was not prepared")
        device = self.device
        number = self.device_number
        run = RunFacts(
            accel=self.options.accel,
            qemu_pid=qemu_pid,
            qemu_version=qemu_version,
            vcpu_tids=vcpu_tids,
            trace_clock="mono",
            trace_events=self.tracing.events if self.tracing else (),
            mm_fault_probe=self.tracing is not None and "apf/mm_fault" in self.tracing.events,
            io_dev=number,
            backing_device=swap_device.device_number(device.backing) if device and device.backing else None,
            page_cluster=int(read_text("/proc/sys/vm/page-cluster")),
            swappiness=int(read_text("/proc/sys/vm/swappiness")),
        )
        self.run = run
        self.write_record("facts.json", Facts(self.facts, run))

    def new_thread(self, vcpu: int, tid: int) -> None:
        """A vCPU was plugged in again and has a thread of its own: facts.json, the trace and the gate follow it."""
        if self.facts is None or self.run is None:
            raise InfraFault("a vCPU is plugged into a guest that does not run")
        self.run = replace(self.run, later_tids=(*self.run.later_tids, (vcpu, tid)))
        self.write_record("facts.json", Facts(self.facts, self.run))
        tids = (*self.run.vcpu_tids, *(later for _, later in self.run.later_tids))
        if self.tracing:
            self.tracing.follow(tids, self.device_number)
        if self.device is not None and self.device.gate is not None and self.watch is not None:
            self.watch.filter(filters(tids, self.device_number))
            self.device.gate.ask("thread", vcpu=vcpu, tid=tid)

    @property
    def device_number(self) -> str | None:
        """The number "major,minor" of the device that the pages are read from; None: there is none."""
        return swap_device.device_number(self.device.path) if self.device and self.device.path else None

    def counters(self, name: str, guest: Guest, tids: tuple[int, ...], ram_hva: int) -> None:
        """counters/<name>.json, as long as QEMU is there.

        :param ram_hva: address in QEMU of guest physical address 0.
        :raise PreconditionFailed: others have swapped between two calls: the host's counters are not ours alone.
        """
        before, self.others = self.others, None
        if before is None and self.facts and self.facts.swap_in_use:
            self._check_swap()
            self.others = SwappedByOthers.now(self._swap_device)
        with suppress(FileNotFoundError, ProcessLookupError):
            ram = range(ram_hva, ram_hva + (self.plan.guest.memory_mib << 20))
            self.write_record(f"counters/{name}.json", snapshot(guest.pid, tids, self.group, ram))
        if before is not None and (more := SwappedByOthers.now(self._swap_device).since(before)):
            raise PreconditionFailed(f"others on this host swapped meanwhile, {more}: its counters are not ours alone")

    @property
    def _swap_device(self) -> str:
        """The device that we swap to, empty: we do not."""
        is_swap = self.plan.memory.backing is not Backing.FILE
        return self.device.path if self.device is not None and is_swap else ""

    def _check_swap(self) -> None:
        """:raise PreconditionFailed: other swap areas have pages of ours, or ours has pages of others."""
        if self._swap_device and self.group is not None:
            wrong = misplaced(self._swap_device, self.group.swapped_pages())
            if wrong:
                raise PreconditionFailed(wrong)

    def open_faults(self, pid: int, ram_hva: int) -> None:
        """Register missing pages of QEMU, if they are what the plan reads from."""
        if self.plan.swap.kind is SwapKind.USERFAULT:
            planned = {page.gpa for page in self.plan.pages}
            size = self.plan.guest.memory_mib << 20

            def content(gpa: int) -> bytes | None:
                return planned_content(self.plan, gpa) if gpa in planned else None

            self.device = Device("", gate=open_faults(self.journal, pid, ram_hva, size, content))

    def arm(self, tids: Sequence[int], ram_hva: int, sectors: Mapping[int, int]) -> None:
        """Page-cluster, and reads that end as the plan wants them, from here on.

        :param ram_hva: address in QEMU of guest physical address 0.
        :param sectors: gpa of planned pages -> their first sector on the device, as far as it is known.
        """
        plan = self.plan
        self.journal.write("/proc/sys/vm/page-cluster", str(plan.swap.page_cluster))
        if self.device is None:
            return
        self.device.set_delay(self.journal, plan.swap.delay_ms)
        if self.device.gate is not None and self.watch is not None:
            self.watch.start(filters(tids, self.device_number))
            self.device.gate.arm(
                rule=plan.swap.release, order=plan.swap.order, tids=tids,
                pages={sector: gpa >> 12 for gpa, sector in self._places(sectors).items()},
                errors=[page.gpa >> 12 for page in plan.pages if page.name in plan.swap.error],
                after_s=plan.swap.delay_ms / 1000,
                ram_hva=ram_hva if WORKER_FAULT in self.watch.events else -1,
                apic_ids=vcpu_ids(plan.guest), moved=plan.guest.l2.moved,
                trace=self.watch.pipe,
            )  # fmt: skip

    def _places(self, sectors: Mapping[int, int]) -> Mapping[int, int]:
        if self.plan.swap.kind is not SwapKind.USERFAULT:
            return sectors
        return {page.gpa: page.gpa >> 9 for page in self.plan.pages}

    def set_parameters(self) -> None:
        """What the plan wants only when the guest is let go, once the trace shows that it was entered before."""
        if self.plan.kernel_params_at_go and self.tracing is not None:
            wait_until(self.tracing.entered, ENTRY_SECONDS, "an entry of the guest that waits to be let go")
        for parameter, value in self.plan.kernel_params_at_go:
            self.journal.write(_parameter_path(parameter), value)

    def release(self) -> None:
        """Let go every read that the device holds."""
        if self.device:
            self.device.open(self.journal)

    def is_over(self, tids: Sequence[int]) -> bool:
        """Nothing that the guest began is under way: no read, no work, no vCPU thread in a fault.

        Of a source that is not gated nobody can tell, nor without a trace.
        """
        gate = self.device.gate if self.device else None
        if self.tracing is None or (self.device is not None and gate is None):
            return False
        if any(thread_state(tid) == "D" for tid in tids) or (gate is not None and gate.held()):
            return False
        return self.tracing.outstanding() == 0 and self.tracing.uncompleted() == 0

    def collect_gate(self) -> None:
        """gate.json: what became of each read, and why, before the agent itself reads what is not there; everything
        passes then.  Once: what is read behind it is not the run's."""
        if self.device and self.device.gate and not self.gate_told:
            self.gate_told = True
            self.write_record("gate.json", self.device.gate.log())
            self.device.gate.open()
            if self.watch:
                self.watch.stop()

    def stop_tracing(self) -> None:
        """Recording off and everything it saw into the capture."""
        points = reached_points()
        if points:
            self.capture.write_bytes(CAPTURED, points.encode())
        if self.tracing:
            self.tracing.stop()
            self.write_record("trace/stats.json", self.tracing.save(self.capture.path("trace/events.txt")))
            if self.options.trace_dat:
                self._keep_trace_dat(self.tracing)

    def _keep_trace_dat(self, tracing: Tracing) -> None:
        """trace.dat, or why there is none: nothing is judged by it, so its lack costs no verdict."""
        try:
            write_trace_dat(tracing.root, tracing.path, tracing.events, self.capture.path(TRACE_DAT))
        except (OSError, InfraFault) as exc:
            self.capture.write_text(NO_TRACE_DAT, f"{exc}\n")


def _parameter_path(parameter: str) -> str:
    """:raise InfraFault: that is no name of a module's parameter: it would be a path of somebody's choice."""
    module, _, name = parameter.partition(".")
    if not _NAME.fullmatch(module) or not _NAME.fullmatch(name):
        raise InfraFault(f"{parameter!r} is no module parameter")
    return f"/sys/module/{module}/parameters/{name}"
