# SPDX-License-Identifier: GPL-2.0-or-later
"""What every scenario needs on the host before and after its guest: checks, sysctls, device, cgroup, tracing, facts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from harness.agent.capture_folder import Capture
from harness.agent.gate.faults import open_faults
from harness.agent.gate.watch import WORKER_FAULT, filters
from harness.agent.guest.qemu import Guest
from harness.agent.host import swap as swap_device
from harness.agent.host.cgroup import ScenarioCgroup, make_cgroup
from harness.agent.host.host_facts import host_facts
from harness.agent.host.kernel_files import available_mib, need_file, read_text, selected
from harness.agent.host.points import CAPTURED, forget_points, reached_points
from harness.agent.host.read_counters import snapshot, thread_state
from harness.agent.host.resident import Instances, open_instances
from harness.agent.host.swap import Device
from harness.agent.host.tracing import BOOT_WITHOUT, Tracing, Watch, outstanding, uncompleted
from harness.agent.host.undo import Journal
from harness.agent.host.userfault import has_userfaultfd
from harness.agent.pages.page_content import page_content
from harness.agent.ram.choose import ram_of
from harness.agent.ram.guest_ram import GuestRam
from harness.contract.capture import Facts, HostFacts, RunFacts
from harness.contract.gate import Rule, rule_of
from harness.contract.plan import PAGE_SIZE, GuestKind, Plan, SwapKind, to_json
from harness.contract.service import AgentOptions
from harness.contract.words import HostWord, ReadOrder
from harness.errors import InfraFault, Unsupported

_THP = "/sys/kernel/mm/transparent_hugepage/enabled"
_KSM = "/sys/kernel/mm/ksm/run"
BOOT_WORKLOAD = "boot"
QEMU_MIB = 192  # what QEMU needs besides the guest's memory, with room to spare
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
    ram_path: str = ""

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

    @property
    def name(self) -> str:
        return f"apf-{self.plan.nonce & 0xFFFFFFFF:08x}"

    def prepare_host(self) -> None:
        """Everything up to the guest's start. :raise Unsupported: this host cannot; nothing has been changed then."""
        facts = self.facts = host_facts()
        self.capture.write_json("facts.json", Facts(facts))
        self._do_without_gate(facts)
        self._check_needs(facts)
        self._settings(facts)
        if self.plan.guest.kind is GuestKind.HOST_PROGRAM:
            return
        if self.plan.swap.kind not in (SwapKind.NONE, SwapKind.USERFAULT):
            self.device = swap_device.open_device(
                self.journal, self.plan.swap, self.options.disk, self.name, self.options.no_disk
            )
            self.ram_path = self.ram.set_up(self.journal, self.device, self.plan, f"{self.options.scratch}/{self.name}")
        if self.options.accel == "kvm":
            self.group = make_cgroup(self.journal, self.name)
            boots = self.plan.guest.kind is GuestKind.LINUX and self.plan.guest.workload == BOOT_WORKLOAD
            instances = self.resident or open_instances(self.journal, self.name)
            self.tracing, self.watch = instances.tracing.renew(BOOT_WITHOUT if boots else ()), instances.watch

    def _do_without_gate(self, facts: HostFacts) -> None:
        """Where there is no nbd, dm-delay performs the default rule: plan.json says then that it was used."""
        swap = self.plan.swap
        if swap.kind is not SwapKind.GATED or facts.nbd:
            return
        words = {action.do for actions in self.plan.host_actions for action in actions}
        words |= {action.do for timed in self.plan.timed for action in timed.actions}
        plain = rule_of(swap) == Rule() and not swap.error and swap.order is ReadOrder.TARGET_LAST
        if not plain or words & {HostWord.RELEASE, HostWord.WAIT_SETTLED, HostWord.WAIT_HALTED}:
            raise Unsupported("the host's kernel has no nbd, and dm-delay cannot end reads as this plan says")
        self.plan = replace(self.plan, swap=replace(swap, kind=SwapKind.DELAY))
        self.capture.write_text("plan.json", to_json(self.plan))

    def _check_needs(self, facts: HostFacts) -> None:
        guest = self.plan.guest
        if self.options.accel == "kvm":
            if not facts.kvm_device:
                raise Unsupported("/dev/kvm is not there or not usable")
            if not facts.cgroup_memory:
                raise Unsupported("the host has no cgroup v2 memory controller")
        if guest.kind is GuestKind.HOST_PROGRAM:
            need_file(self.options.program, "--program")
            return
        self._check_memory()
        if shutil.which(self.options.qemu) is None:
            raise Unsupported(f"{self.options.qemu} cannot be run on the host")
        if self.plan.swap.kind is not SwapKind.NONE and facts.swap_in_use:
            raise Unsupported(
                f"swap is in use on the host already ({', '.join(facts.swap_in_use)}): its counters are global"
            )
        if self.plan.swap.kind is SwapKind.DELAY and not facts.dm_delay:
            raise Unsupported("the host's kernel has no dm-delay")
        if self.plan.swap.kind is SwapKind.USERFAULT and not has_userfaultfd():
            raise Unsupported("the host's kernel has no userfaultfd, or the agent may not handle faults of kernel mode")
        if self.plan.swap.kind is SwapKind.ZRAM and not facts.zram:
            raise Unsupported("the host's kernel has no zram")
        for parameter, _ in (*self.plan.kernel_params, *self.plan.kernel_params_at_go):
            if not os.path.exists(_parameter_path(parameter)):
                raise Unsupported(f"the host's kernel has no module parameter {parameter}")
        if guest.kind is GuestKind.PROBE:
            need_file(self.options.probe, "--probe")
        else:
            need_file(self.options.guest_kernel, "--guest-kernel")
            need_file(self.options.guest_initrd, "--guest-initrd")

    def _check_memory(self) -> None:
        """The guest and its QEMU must find room without anything else being paged out."""
        wanted = self.plan.guest.memory_mib + QEMU_MIB
        available = available_mib()
        allowed = min(self.options.memory_mib or available, available)
        if wanted > allowed:
            limit = f", of which {self.options.memory_mib} MiB may be used" if self.options.memory_mib else ""
            raise Unsupported(
                f"the plan wants {wanted} MiB of memory ({QEMU_MIB} of them for QEMU),"
                f" the host has {available} MiB available{limit}"
            )

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
        for parameter, value in self.plan.kernel_params:
            self.journal.write(_parameter_path(parameter), value)
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
        self.capture.write_json("facts.json", Facts(self.facts, run))

    @property
    def device_number(self) -> str | None:
        """The number "major,minor" of the device that the pages are read from; None: there is none."""
        return swap_device.device_number(self.device.path) if self.device and self.device.path else None

    def counters(self, name: str, guest: Guest, tids: tuple[int, ...]) -> None:
        """counters/<name>.json, as long as QEMU is there."""
        with suppress(FileNotFoundError, ProcessLookupError):
            self.capture.write_json(f"counters/{name}.json", snapshot(guest.pid, tids, self.group))

    def open_faults(self, pid: int, ram_hva: int) -> None:
        """Register missing pages of QEMU, if they are what the plan reads from."""
        if self.plan.swap.kind is SwapKind.USERFAULT:
            planned = {page.gpa for page in self.plan.pages}
            nonce, size = self.plan.nonce, self.plan.guest.memory_mib << 20

            def content(gpa: int) -> bytes:
                return page_content(gpa, nonce) if gpa in planned else bytes(PAGE_SIZE)

            self.device = Device("", gate=open_faults(self.journal, pid, ram_hva, size, content))

    def arm(self, tids: Sequence[int], ram_hva: int, sectors: Mapping[int, int]) -> None:
        """Page-cluster, parameters, and reads that end as the plan wants them, from here on.

        :param ram_hva: address in QEMU of guest physical address 0.
        :param sectors: gpa of planned pages -> their first sector on the device, as far as it is known.
        """
        plan = self.plan
        self.journal.write("/proc/sys/vm/page-cluster", str(plan.swap.page_cluster))
        for parameter, value in plan.kernel_params_at_go:
            self.journal.write(_parameter_path(parameter), value)
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
                trace=self.watch.pipe,
            )  # fmt: skip

    def _places(self, sectors: Mapping[int, int]) -> Mapping[int, int]:
        if self.plan.swap.kind is not SwapKind.USERFAULT:
            return sectors
        return {page.gpa: page.gpa >> 9 for page in self.plan.pages}

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
        trace = self.tracing.text()
        return outstanding(trace) == 0 and uncompleted(trace) == 0

    def collect_gate(self) -> None:
        """gate.json: what became of each read, and why."""
        if self.device and self.device.gate:
            self.capture.write_json("gate.json", self.device.gate.log())
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
            self.capture.write_json("trace/stats.json", self.tracing.save(self.capture.path("trace/events.txt")))


def _parameter_path(parameter: str) -> str:
    module, _, name = parameter.partition(".")
    return f"/sys/module/{module}/parameters/{name}"
