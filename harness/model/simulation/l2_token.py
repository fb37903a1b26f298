# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry after a token of an L2 (behaviour.md B.12): when it is, and who gets the #PF, if anybody does."""

from __future__ import annotations

from typing import assert_never

from harness.model import delivery as d
from harness.model.delivery import ApfState, Work
from harness.model.events import Event, Kind
from harness.model.outcomes import Outcome
from harness.model.simulation.recorded import RecordedEvent
from harness.model.simulation.world import World


def entry_ns(world: World, vcpu: int, mark: RecordedEvent) -> int:
    """What a recorded thread waits for before it enters: its next ready event, or the entry; 0: nothing any more.

    Interrupts that are accepted meanwhile count.
    """
    following = world.replay.peek(vcpu) if world.replay else None
    until = mark.until_ns
    if following is not None and following.kind is Kind.RDY:
        until = min(until, following.start_ns)
    return until if until > world.engine.now else 0


def tell(world: World, s: ApfState, vcpu: int, work: Work | None, mark: RecordedEvent | None) -> Work | None:
    """Who is told of the token; the work, if it is L1."""
    rewritten = world.situation.timing.rewritten if mark is None else mark.rewritten
    s.req_event = s.req_event or (mark is None and world.situation.timing.ticks_between)
    what, finding = d.kvm_check_nested_events(
        s, rewritten=rewritten, wiped=_wiped(world, s, work, mark, rewritten=rewritten)
    )
    if finding:
        world.known_faults.append(finding)
    match what:
        case d.L2Exception.VMEXIT:
            s.guest_mode = False
            world.emit(Event(Kind.L2_EXIT, vcpu, token=work.token if work else 0, flag=True))
            return work
        case d.L2Exception.TO_L2:
            world.emit(Event(Kind.INJ, vcpu))
            outcome, why = Outcome.TO_L2, "it is given to L2"
        case d.L2Exception.LOST:
            outcome, why = Outcome.LEFT, "no KVM_REQ_EVENT: L2 runs on, and the #PF exit is wiped"
        case _:
            assert_never(what)
    if work is not None:
        fault = world.item(work.item).faults[-1]
        fault.outcome = fault.outcome if fault.outcome is Outcome.LOOP else outcome
        fault.why = f"{fault.why}; {why} ({finding})"
    return None


def _wiped(world: World, s: ApfState, work: Work | None, mark: RecordedEvent | None, *, rewritten: bool) -> bool:
    """A kernel with F2, and something asked for KVM_REQ_EVENT: whether that was before an entry was cancelled.

    vcpu_enter_guest cancels where a request came (a timer's KVM_REQ_UNBLOCK) or a signal, or a thread wants the CPU.
    """
    if world.replay is None or mark is None or not (s.req_event or rewritten) or not s.kernel.vmexit_needs_request:
        return False
    why = f"whether an entry was cancelled before the #PF exit of {mark.key:#x}"
    other = world.replay.choices.ask(2, why, work.gpa >> 12 if work else -1) == 1
    return other is mark.told
