# SPDX-License-Identifier: GPL-2.0-or-later
"""A deliberately naive model of KVM's side of async page faults: lists and loops, no code shared with the checker.

It follows behaviour.md B.4 to B.11 step by step and emits the events that a merged trace would have.  A script of
numbers drives it (``ReferenceKvm.play``), so that Hypothesis can make and shrink random legal traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.model.events import Event, Kind
from harness.model.protocol.rules import FaultState, RuleContext

POOL = 0x1000000
HVA = 0x7F0000000000
EN_VALUE = 0x801009
ENABLE, DISABLE = 9, 0
MSR_EN, MSR_INT, MSR_ACK = 0x4B564D02, 0x4B564D06, 0x4B564D07
ACTIONS = (
    "touch", "touch", "touch", "touch", "complete", "complete", "complete", "kick", "wake", "wake", "ack", "ack",
    "zero", "late_done", "reclaim", "noise", "interrupt", "user_exit", "enable", "disable", "reset", "vector",
)  # fmt: skip
CALM = tuple(name for name in ACTIONS if name not in ("enable", "disable", "reset", "vector"))


class TwinVcpu:
    """What B.3 lists, as plain attributes."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.en = 0
        self.int_vec = 0
        self.ident = 0
        self.queue: list[dict] = []  # all works, wake-alls too
        self.done: list[dict] = []
        self.req_ready = False
        self.slot = 0  # the token word of the shared area
        self.inject: int | None = None
        self.sleeping = False


class ReferenceKvm:
    """A VM of naive vCPUs.  Pages with an even number are touched at CPL3, those with an odd one at CPL0."""

    def __init__(self, vcpus: int = 2, pages: int = 8) -> None:
        self.vcpus = [TwinVcpu(i) for i in range(vcpus)]
        self.pages = pages
        self.mapped: set[int] = set()
        self.trace: list[Event] = []
        self.untraced: list[dict] = []  # works appended to done whose DONE is not traced yet
        for v in self.vcpus:
            self.emit(Kind.ENTRY, v)
            self.emit(Kind.EXIT, v)
            v.int_vec = 0xF3
            self.emit(Kind.WRMSR, v, value=MSR_INT, data=0xF3)
            self.enter(v)
            self.enable(v, 0)

    def context(self) -> RuleContext:
        """What the reference knows and the trace does not say."""
        states = {
            (v.index, (POOL >> 12) + page): (FaultState(cpl=0 if page % 2 else 3),)
            for v in self.vcpus
            for page in range(self.pages)
        }
        return RuleContext(
            faults=states,
            lapic_in_kernel=True,
            hlt_exits=True,
            area_stays=True,
        )

    def play(self, script: Sequence[tuple[int, int, int]], actions: Sequence[str] = ACTIONS) -> list[Event]:
        """Each (action, vCPU, argument) is done if it is possible at that moment."""
        for action, vcpu, argument in script:
            getattr(self, actions[action % len(actions)])(self.vcpus[vcpu % len(self.vcpus)], argument)
        return self.trace

    def emit(self, kind: Kind, v: TwinVcpu | None, **fields: Any) -> None:
        number = len(self.trace) + 1
        index = -1 if v is None else v.index
        self.trace.append(Event(kind, index, t_ns=number * 100, line=number, **fields))

    # --- the vCPU thread

    def enter(self, v: TwinVcpu) -> None:
        """vcpu_enter_guest: requests, then events, then the guest."""
        if v.req_ready:
            v.req_ready = False
            self.consume(v)
        if v.inject is not None:
            self.emit(Kind.INJ, v)
            v.inject = None
        self.emit(Kind.ENTRY, v)

    def consume(self, v: TwinVcpu) -> None:
        while v.done and (v.en & 9 != 9 or v.slot == 0):
            work = v.done.pop(0)
            v.queue.remove(work)
            wake_all = work["gpa"] is None
            token = 0xFFFFFFFF if wake_all else work["token"]
            if not wake_all:
                self.mapped.add(work["page"])
            self.emit(Kind.RDY, v, token=token, gpa=work["gpa"] or 0)
            if (wake_all or work["token_injected"]) and v.en & 9 == 9:
                v.slot = token
                self.emit(Kind.ACC, v, value=v.int_vec)
            if work in self.untraced:  # flush_work
                self.late(work)

    def halt(self, v: TwinVcpu) -> None:
        if v.done:
            self.enter(v)
        else:
            v.sleeping = True
            self.emit(Kind.OUT, v, value=ord("S"))

    def touch(self, v: TwinVcpu, page: int) -> None:
        page %= self.pages
        if v.sleeping or page in self.mapped:
            return
        gpa = POOL + page * 4096 + 8 * page
        self.emit(Kind.EXIT, v)
        self.emit(Kind.PF, v, gpa=gpa)
        self.emit(Kind.TRY, v, gpa=gpa)
        if any(work["page"] == page for work in v.queue):
            self.emit(Kind.REP, v, gpa=gpa)
            self.halt(v)
            return
        v.ident = v.ident + 1 if v.ident < 0xFFFFF else 1
        if len(v.queue) >= 64:
            self.mapped.add(page)
            self.enter(v)
            return
        token = v.ident * 4096 + v.index
        injected = v.en & 9 == 9 and (page % 2 == 0 or v.en & 2 != 0)
        v.queue.append({"token": token, "gpa": gpa, "page": page, "token_injected": injected, "vcpu": v})
        self.emit(Kind.NP, v, token=token, gpa=gpa)
        if injected:
            v.inject = token
            self.enter(v)
        else:
            self.halt(v)

    def kick(self, v: TwinVcpu, _: int) -> None:
        if not v.sleeping:
            self.emit(Kind.EXIT, v)
            self.enter(v)

    def wake(self, v: TwinVcpu, _: int) -> None:
        if v.sleeping and v.done:
            v.sleeping = False
            self.emit(Kind.IN, v)
            self.enter(v)

    def interrupt(self, v: TwinVcpu, _: int) -> None:
        self.emit(Kind.IN if v.sleeping else Kind.EXIT, v)
        v.sleeping = False
        self.emit(Kind.VIRQ, v, value=0xEC)
        self.enter(v)

    def user_exit(self, v: TwinVcpu, _: int) -> None:
        if not v.sleeping:
            self.emit(Kind.EXIT, v)
            self.emit(Kind.USER_EXIT, v, value=2)
            self.emit(Kind.OUT, v, value=ord("S"))
            self.emit(Kind.IN, v)
            self.enter(v)

    def noise(self, v: TwinVcpu, page: int) -> None:
        if not v.sleeping:
            self.emit(Kind.EXIT, v)
            self.emit(Kind.PF, v, gpa=POOL - 4096 * (1 + page % 16))
            self.emit(Kind.OUT, v, value=ord("D"))
            self.emit(Kind.IN, v)
            self.enter(v)

    # --- the guest's own writes

    def zero(self, v: TwinVcpu, _: int) -> None:
        if not v.sleeping:
            v.slot = 0

    def ack(self, v: TwinVcpu, _: int) -> None:
        if v.sleeping or v.en & 9 != 9:
            return
        v.slot = 0
        self.emit(Kind.EXIT, v)
        self.consume(v)
        self.emit(Kind.WRMSR, v, value=MSR_ACK, data=1)
        self.enter(v)

    def enable(self, v: TwinVcpu, _: int) -> None:
        if v.sleeping:
            return
        self.emit(Kind.EXIT, v)
        v.en = ENABLE
        if not v.done:
            work = {"token": 0xFFFFFFFF, "gpa": None, "page": None, "token_injected": False, "vcpu": v}
            v.queue.append(work)
            v.done.append(work)
            v.req_ready = True
        self.emit(Kind.WRMSR, v, value=MSR_EN, data=EN_VALUE)
        self.enter(v)

    def disable(self, v: TwinVcpu, running: int) -> None:
        if v.sleeping:
            return
        self.emit(Kind.EXIT, v)
        self.clear(v, running)
        v.en = DISABLE
        self.emit(Kind.WRMSR, v, value=MSR_EN, data=0)
        self.enter(v)

    def reset(self, v: TwinVcpu, running: int) -> None:
        self.emit(Kind.IN if v.sleeping else Kind.EXIT, v)
        v.sleeping = False
        self.clear(v, running)
        v.en = v.int_vec = v.slot = 0
        v.inject = None
        self.emit(Kind.CLEAR, v)
        self.enter(v)
        self.vector(v, 0xF3)

    def vector(self, v: TwinVcpu, number: int) -> None:
        if v.sleeping:
            return
        self.emit(Kind.EXIT, v)
        v.int_vec = 0xF3 if number % 2 else 0xF4
        self.emit(Kind.WRMSR, v, value=MSR_INT, data=v.int_vec)
        self.enter(v)

    def clear(self, v: TwinVcpu, running: int) -> None:
        """Works that run are waited for, those that do not are cancelled, done ones are freed."""
        for number, work in enumerate(v.queue):
            if work in self.untraced:
                self.late(work)
            elif work not in v.done and running >> (number % 8) & 1:
                self.untraced.append(work)
                self.late(work)
        v.queue = []
        v.done = []

    # --- workers and memory

    def complete(self, v: TwinVcpu, number: int) -> None:
        """async_pf_execute ends for one of the works: append to done; the trace of it may come later."""
        pending = [work for work in v.queue if work not in v.done]
        if not pending:
            return
        work = pending[number % len(pending)]
        if not v.done:
            v.req_ready = True
        v.done.append(work)
        self.untraced.append(work)
        if number % 4:
            self.late(work)

    def late(self, work: dict) -> None:
        self.untraced.remove(work)
        self.emit(Kind.DONE, None, gpa=work["gpa"], hva=HVA + work["gpa"], worker=True)
        if work["vcpu"].sleeping:  # __kvm_vcpu_wake_up
            self.emit(Kind.WAKING, None, value=work["vcpu"].index, worker=True)

    def late_done(self, v: TwinVcpu, number: int) -> None:
        if self.untraced:
            self.late(self.untraced[number % len(self.untraced)])

    def reclaim(self, v: TwinVcpu, page: int) -> None:
        page %= self.pages
        if page in self.mapped:
            self.mapped.remove(page)
            hva = HVA + POOL + page * 4096
            self.emit(Kind.UNMAP, None, hva=hva, data=hva + 4096)

    def drain(self) -> None:
        """Let everything end that has begun, as a guest does before it says that it is done."""
        for v in self.vcpus:
            while any(work not in v.done for work in v.queue):
                self.complete(v, 1)
            while v.queue or v.sleeping:
                self.wake(v, 0)
                self.ack(v, 0)
                self.kick(v, 0)
            for work in list(self.untraced):
                if work["vcpu"] is v:
                    self.late(work)
