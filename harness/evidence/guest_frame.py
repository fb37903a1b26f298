# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest's log against itself and its plan: what guest-images/probe cannot have written is damage.

A log that went through here is one that the program can have made, so what is wrong in it afterwards (a value, a token
that nobody injected) is the kernel's doing.  Order is told for each vCPU, as its log has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.contract.capture import FEATURES_NOT_READ, FORMAT, WAITS_NOT_KEPT
from harness.contract.plan import HostWord, Item, Op, Plan, initialized, resets, says, starts_anew, vcpu_ids
from harness.contract.probe_abi import FOUND, MASK64, UNMAPPED_GVA, VEC_TIMER, FeaturesLeaf, Record, State, SvmExit
from harness.contract.words import Access
from harness.evidence.guestlog import GuestLog, GuestRecord, ProgramState, boot_of
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, WAKE_ALL_TOKEN

GP, PAGE_FAULT = 13, 14
WINDOW = 0
"""Of the dummy interrupt by which KVM asks for an interrupt window (arch/x86/kvm/svm/svm.c:svm_set_vintr)."""
SVM_EXITS = frozenset(SvmExit)
_OF_L2 = frozenset({Record.L2_EXIT, Record.L2_WORDS, Record.L2_FAULT})
_OF_ITEM = frozenset({Record.START, Record.END, Record.TOKEN, Record.WAKE, Record.STAGE, Record.PAGE_FAULT}) | _OF_L2
_LEAVES = frozenset(FeaturesLeaf) - {FeaturesLeaf.NOT_READ}
_OF_A_PANIC = frozenset({Record.L2_WORDS, Record.FAULT, Record.CR2})
_OF_NONE = frozenset({Record.BOOT, Record.IDLE, Record.IRQ, Record.NMI, Record.DONE})


def frame_problems(plan: Plan, log: GuestLog, capture_format: int = FORMAT) -> Iterator[str]:
    """Each contradiction, in words; nothing where the log holds together.

    A log without its end (deadline, panic, QEMU gone) is looked at as far as it goes.
    """
    if log.ended != (log.state == State.DONE):
        yield f"the end mark is {'there' if log.ended else 'not there'}, the state is {log.state}"
    for vcpu, apic_id in enumerate(vcpu_ids(plan.guest)):
        walk = _Walk(
            plan, vcpu, apic_id, resets(plan), vcpu in initialized(plan), says(plan, HostWord.LOADVM),
            capture_format > WAITS_NOT_KEPT, capture_format > FEATURES_NOT_READ,
        )  # fmt: skip
        for number, record in enumerate(log.vcpus[vcpu]):
            for text in walk.take(record, number):
                yield f"vCPU {vcpu}, record {number} ({record.kind.name}): {text}"
        if log.ended:
            for text in walk.end(log.progress[vcpu]):
                yield f"vCPU {vcpu}: {text}"
    if log.ended and log.ended_vcpus != plan.guest.vcpus:
        yield f"the control page says that {log.ended_vcpus} vCPUs have ended, the plan has {plan.guest.vcpus}"
    asked = sum(e.kind is Record.STAGE and e.b == 0 for e in log.all())
    if log.ended and log.host_entries != asked and not starts_anew(plan):
        yield f"the control page says that the agent was asked {log.host_entries} times, the log {asked} times"


@dataclass(slots=True)
class _Walk:
    """One vCPU's log, record by record.  ``resets``: of the machine; ``inits``: of this vCPU; ``loads``: a snapshot,
    which has the time stamp counter of then; ``of_today``: it says what a clear_token found, and keeps each step to
    another item in the control page, waits too; ``reads_features``: of KVM, when it boots."""

    plan: Plan
    vcpu: int
    apic_id: int
    resets: bool
    inits: bool
    loads: bool
    of_today: bool
    reads_features: bool
    boots: int = 0
    tsc: int = 0
    running: int = -1  # item of the last START or WAKE that has neither ended nor been put aside
    idle: bool = False
    done: bool = False
    performed: int = 0  # as DONE says
    faulted: bool = False
    started: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    waits: dict[int, int] = field(default_factory=dict)  # item -> the token that it waits for
    woken: set[int] = field(default_factory=set)  # items whose token has come, and that have not gone on
    early: Counter[int] = field(default_factory=Counter)  # readies that came before their tokens
    stage: int = -1
    exit: GuestRecord | None = None  # the last one of the L2 that runs
    exited: bool = False  # L2_EXIT, and the words have still to come

    @property
    def anew(self) -> bool:
        """It may boot more than once."""
        return self.resets or self.inits

    def take(self, e: GuestRecord, number: int) -> Iterator[str]:
        # Another vCPU may have the machine, or this one, reset; and an NMI comes whatever RFLAGS.IF is.
        if self.done and not (self.anew and e.kind is Record.BOOT) and e.kind is not Record.NMI:
            yield "stands behind DONE"
        if number == 0 and e.kind is not Record.BOOT:
            yield "the log does not begin with BOOT"
        if e.kind in _OF_NONE and e.item >= 0:
            yield f"names item {e.item}"
        if e.kind is Record.BOOT:
            yield from self._boot(e)
            return
        if e.tsc < self.tsc and not self.loads:
            yield f"its time {e.tsc} is before that of the record before it"
        self.tsc = e.tsc
        if self.faulted and e.kind is not Record.CR2:
            yield "FAULT is not followed by CR2"
        if self.exited and e.kind is not Record.L2_WORDS:
            yield "L2_EXIT is not followed by L2_WORDS"
        exit_code = self.exit.a & 0xFFFFFFFF if self.exit is not None else SvmExit.VMMCALL
        if exit_code not in SVM_EXITS and e.kind not in _OF_A_PANIC:
            yield f"exit {exit_code:#x} of the L2, behind which no item goes on"
        if e.kind in _OF_ITEM and not self._set_up(e):
            if not 0 <= e.item < len(self.plan.items):
                yield f"names item {e.item}, the plan has {len(self.plan.items)}"
                return
            if self.plan.items[e.item].vcpu != self.vcpu:
                yield f"item {e.item} is of vCPU {self.plan.items[e.item].vcpu}"
                return
        yield from self._kind(e)

    def _kind(self, e: GuestRecord) -> Iterator[str]:
        match e.kind:
            case Record.START:
                yield from self._start(e, self.plan.items[e.item])
            case Record.END:
                if not self._set_up(e):
                    yield from self._end(e, self.plan.items[e.item])
            case Record.TOKEN:
                yield from self._token(e)
            case Record.READY:
                yield from self._ready(e)
            case Record.WAKE:
                yield from self._wake(e)
            case Record.IDLE:
                if e.a not in (0, 1) or e.b or bool(e.a) != self.idle:
                    yield "idling ends before it begins, or begins twice"
                self.idle = e.a == 0
            case Record.STAGE:
                yield from self._staged(e, self.plan.items[e.item])
            case Record.MSR:
                if e.item != self.running:
                    yield f"names item {e.item}, item {self.running} is running"
                elif e.item >= 0 and self.plan.items[e.item].msr != e.a:
                    yield f"item {e.item} writes MSR {self.plan.items[e.item].msr:#x}, not {e.a:#x}"
            case Record.IRQ:
                if e.a == VEC_TIMER and not any(i.op is Op.TIMER for i in self.plan.items):
                    yield "the timer, which no item starts"
            case Record.NMI:
                if e.a or not says(self.plan, HostWord.NMI):
                    yield "an NMI, and the plan has none"
            case Record.FAULT:
                self.faulted = True
            case Record.CR2:
                if not self.faulted:
                    yield "CR2 without FAULT"
                self.faulted = False
            case Record.L2_EXIT | Record.L2_WORDS | Record.L2_FAULT:
                yield from self._of_l2(e, self.plan.items[e.item])
            case Record.PAGE_FAULT:
                if e.item != self.running or self.plan.items[e.item].op is not Op.PAGE_FAULT or e.a != UNMAPPED_GVA:
                    yield f"item {e.item} is not running, or makes no fault at {e.a:#x}"
            case Record.DONE:
                yield from self._done(e)
            case Record.BOOT:
                return

    def _set_up(self, e: GuestRecord) -> bool:
        """END of no item: EN or INT got #GP before the first item."""
        return e.kind is Record.END and e.item < 0 and e.b == GP

    def _boot(self, e: GuestRecord) -> Iterator[str]:
        if e.a != self.apic_id:
            yield f"APIC id {e.a}"
        if self.boots and not self.anew:
            yield "a second boot, and the plan has no reset"
        boot = boot_of(e)
        if self.vcpu == 0 and boot.resets != self.boots:
            yield f"says {boot.resets} resets, the log has {self.boots}"
        # The boot CPU counts once all have logged their first begin (guest-images/probe/main.c:bsp_main).
        elif boot.resets > 0 and not self.boots:
            yield f"says {boot.resets} resets, and is the first"
        elif not self.resets and boot.resets != int(self.boots > 0):
            yield f"says {boot.resets} resets, the plan has none"
        if not self.reads_features:
            if boot.leaf or boot.features:
                yield "says which features KVM offers, which no guest of its time has read"
        elif boot.leaf not in _LEAVES:
            yield "does not say which features KVM offers"
        elif boot.features and boot.leaf == FeaturesLeaf.NONE:
            yield f"says that KVM offers {boot.features:#x}, and that it has found no KVM"
        self.boots += 1
        self.tsc, self.running, self.idle, self.stage, self.done = e.tsc, -1, False, -1, False
        self.waits.clear()
        self.woken.clear()
        self.early.clear()

    def _start(self, e: GuestRecord, item: Item) -> Iterator[str]:
        again = self.anew and item.op is Op.WAIT
        if item.index in self.started and not again:
            yield f"item {item.index} starts twice"
        if self.running >= 0 and self.plan.items[self.running].op is not Op.WAIT:
            yield f"item {self.running} is still running"
        before = [i.index for i in self.plan.items[: item.index] if i.vcpu == self.vcpu]
        if any(i not in self.started for i in before):
            yield f"item {item.index} starts before an earlier one of its vCPU"
        want = item.gpa if item.op is Op.TOUCH else item.value & MASK64
        if e.a != want or e.b:
            yield f"item {item.index} starts with {e.a:#x}, {e.b:#x}, not with {want:#x}"
        self.started.add(item.index)
        if item.op is not Op.WAIT:
            self.running = item.index

    def _end(self, e: GuestRecord, item: Item) -> Iterator[str]:
        waited = item.op is Op.WAIT or (self.anew and item.op is Op.HOST)
        if item.index not in self.started or (self.running != item.index and not waited):
            yield f"item {item.index} ends without running"
        if item.index in self.ended:
            yield f"item {item.index} ends twice"
        if item.level == 2 and not self._exit_was(SvmExit.VMMCALL):
            yield f"item {item.index} ends, and its L2 has not said so"
        if e.b not in (0, GP) or (e.b and item.op is not Op.WRMSR):
            yield f"item {item.index} ({item.op}) ends with exception {e.b}"
        if item.op is Op.CLEAR_TOKEN and (e.a or self.of_today):
            if e.a >> 32 != FOUND >> 32:
                yield f"item {item.index} found {e.a:#x}, which is no token word"
        elif item.op is not Op.TOUCH:
            if e.a != item.value & MASK64:
                yield f"item {item.index} ends with {e.a:#x}, not with its value"
        elif item.access is Access.WRITE and e.a != (item.gpa ^ self.plan.nonce) & MASK64 and not item.no_paging:
            yield f"item {item.index} wrote {e.a:#x}, not what this program writes"
        if item.op is Op.HOST and self.stage != 1:
            yield f"item {item.index} ends, and the agent had not answered"
        if item.op is Op.WRMSR and item.msr == MSR_ASYNC_PF_EN and not e.b and item.value & 9 != 9:
            self._wake_all()
        self.ended.add(item.index)
        if self.running == item.index:
            self.running = -1

    def _of_l2(self, e: GuestRecord, item: Item) -> Iterator[str]:
        """l2.c: each VMRUN ends in an exit that the L2's hypervisor knows."""
        if item.level != 2 or e.item != self.running:
            yield f"item {e.item} has no L2 that runs"
        if e.kind is Record.L2_EXIT:
            self.exit, self.exited = e, True
        elif e.kind is Record.L2_WORDS:
            if not self.exited:
                yield "L2_WORDS without L2_EXIT"
            self.exited = False
        elif e.a & 0xFFFFFFFF not in (WINDOW, PAGE_FAULT):
            yield f"vector {e.a & 0xFFFFFFFF}, with which no L2 goes on"

    def _exit_was(self, code: SvmExit) -> bool:
        return self.exit is not None and self.exit.a & 0xFFFFFFFF == code

    def _token(self, e: GuestRecord) -> Iterator[str]:
        if self.plan.items[e.item].level == 2 and not (
            self._exit_was(SvmExit.EXCP_PF) and self.exit is not None and self.exit.b == e.a
        ):
            yield f"token {e.a:#x}, which no exit of the L2 has brought"
        if e.item != self.running:
            yield f"token {e.a:#x} for item {e.item}, which was not running"
        self.running = -1
        self.waits[e.item] = e.a
        if self.early[e.a & WAKE_ALL_TOKEN]:
            self.early[e.a & WAKE_ALL_TOKEN] -= 1
            self.woken.add(e.item)

    def _ready(self, e: GuestRecord) -> Iterator[str]:
        written = {i.value & 0xFF for i in self.plan.items if i.op is Op.WRMSR and i.msr == MSR_ASYNC_PF_INT}
        if e.b not in written | {self.plan.guest.apf.vector}:
            yield f"vector {e.b:#x}, which nobody has named for it"
        if e.a == WAKE_ALL_TOKEN:
            if e.item >= 0:
                yield "a wake-all of one item"
            self._wake_all()
            return
        waiting = [i for i, token in self.waits.items() if token & WAKE_ALL_TOKEN == e.a and i not in self.woken]
        if e.item >= 0 and e.item not in waiting:
            yield f"item {e.item} does not wait for token {e.a:#x}"
        if e.item < 0 and waiting:
            yield f"item {waiting[0]} waits for token {e.a:#x}, the handler found none"
        if waiting:
            self.woken.update(waiting)
        elif e.a:
            self.early[e.a] += 1

    def _wake(self, e: GuestRecord) -> Iterator[str]:
        if e.item not in self.waits or e.b:
            yield f"item {e.item} did not wait"
        elif self.waits[e.item] & WAKE_ALL_TOKEN != e.a:
            yield f"item {e.item} waited for token {self.waits[e.item]:#x}, it goes on for {e.a:#x}"
        elif e.item not in self.woken:
            yield f"item {e.item} goes on, and nothing has said that token {e.a:#x} is ready"
        if self.running >= 0 and not self.plan.items[self.running].no_paging:
            yield f"item {self.running} is still running"
        self.waits.pop(e.item, None)
        self.woken.discard(e.item)
        self.running = e.item

    def _wake_all(self) -> None:
        self.woken.update(self.waits)

    def _staged(self, e: GuestRecord, item: Item) -> Iterator[str]:
        if item.op is not Op.HOST or e.a != item.value:
            yield f"item {item.index} is no stage {e.a}"
        if e.b not in (0, 1) or (e.b == 1 and self.stage != 0 and not self.anew) or (e.b == 0 and self.stage == 0):
            yield "a stage is answered before it is entered, or entered twice"
        self.stage = e.b

    def _done(self, e: GuestRecord) -> Iterator[str]:
        self.done, self.performed = True, e.b
        if e.a != self.plan.nonce:
            yield f"carries nonce {e.a:#x}, the plan {self.plan.nonce:#x}"
        if e.b != len(self.ended) and not (self.anew and e.b < len(self.ended)):
            yield f"says that {e.b} items ended, the log has {len(self.ended)}"

    def end(self, progress: ProgramState) -> Iterator[str]:
        """What must be so when the guest has come to its end.  ``progress``: of the control page."""
        if not self.done:
            yield "the guest ended, and there is no DONE"
        if self.idle or self.faulted:
            yield "the guest ended in idle or in a fault"
        mine = [i for i in self.plan.items if i.vcpu == self.vcpu]
        behind = max((n + 1 for n, i in enumerate(self.plan.items) if i.vcpu == self.vcpu), default=0)
        if self.done and progress.done != self.performed:
            yield f"{self.performed} items ended, the control page says {progress.done}"
        if self.of_today and progress.next != behind:
            yield f"its program ends at item {behind}, the control page has it at {progress.next}"
        for item in mine:
            if item.index not in self.started:
                yield f"the guest ended, item {item.index} did not start"
            elif item.index not in self.ended and not self.anew:
                yield f"the guest ended, item {item.index} did not"
