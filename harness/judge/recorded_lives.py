# SPDX-License-Identifier: GPL-2.0-or-later
"""Where one life of a vCPU ends and the next begins, in a recording of a machine that is reset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness.evidence.resets import accepts_init
from harness.judge.recorded_drafts import Draft
from harness.model.events import LOADED, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind
from harness.model.simulation.recorded import RecordedEvent


@dataclass(slots=True)
class LivesTracker:
    """Of one vCPU.  A CLEAR of a reset or an INIT becomes a mark, at the moment when the next life was seen.  What
    firmware and start-up code do then, until they write INT or EN (harness.evidence.resets.boots), is no part of the
    model and leaves no mark, but for an INIT that the program of another vCPU gives it then, not the start-up code of
    the boot CPU: that begins a life of its own.

    ``exits``: when its thread left KVM_RUN for the VMM, or an INIT was accepted; ``entered``: of each, when the thread
    had entered the guest before; ``irets``: when an NMI's handler was over (SVM's exit "iret").
    """

    drafts: list[Draft]
    peers: list[LivesTracker] = field(default_factory=list)  # those of all vCPUs
    exits: list[int] = field(default_factory=list)
    entered: list[int] = field(default_factory=list)
    irets: list[int] = field(default_factory=list)
    _boots: int = -1  # the drafts that stay; -1: it runs its program
    _begun: int = -1  # when that life did
    _announced: bool = False  # by an NP, and it has not entered since
    _injected: bool = False  # the token was
    _slept: bool = False  # it has, in KVM_RUN
    _left: bool = False  # KVM_RUN
    _entry: int = -1
    _tid: int = -1  # of its thread
    _again: bool = False  # it was given an INIT by a program, and had not come to its own
    _l2: bool = False  # it has run one
    _given: bool = False  # an INIT, behind which it has not begun anew

    @property
    def unstarted(self) -> bool:
        """It was given an INIT that its L1 may have kept off until the SIPI was gone."""
        return self._l2 and self._given

    def feed(self, event: Event, t: int) -> None:
        """Any event of the vCPU's thread, before it becomes a mark."""
        self._l2 = self._l2 or event.kind is Kind.L2_ENTRY
        over = event.kind is Kind.CLEAR and not event.flag
        self._given = (self._given and not over) or accepts_init(event)
        if event.kind is Kind.USER_EXIT or accepts_init(event):
            self.exits.append(t)
            self.entered.append(self._entry)
            self._left = True  # behind an INIT it sleeps for its SIPI
            self._again = self._again or (event.kind is Kind.ACC and self._starts() and self._by_program(event))
        elif event.kind is Kind.EXIT and "reason iret" in event.text:
            self.irets.append(t)
        elif event.kind is Kind.OUT:
            self._slept = self._slept or (event.value == ord("S") and not self._left)
        elif event.kind in (Kind.NP, Kind.ENTRY):
            self._announced = event.kind is Kind.NP
            self._entry = t if event.kind is Kind.ENTRY else self._entry
            self._injected = self._slept = self._left = False
            self._tid = event.tid
        elif event.kind is Kind.INJ and not (event.flag or event.value):
            self._injected = True
        elif event.kind is Kind.CLEAR and not event.flag and event.value != LOADED and (self._boots < 0 or self._again):
            self.over()
            if self._announced:
                np = next(draft for draft in reversed(self.drafts) if draft.mark.kind is Kind.NP)
                np.mark = replace(np.mark, entered=False, injected=self._injected, slept=self._slept)
                self._announced = False
            self.drafts.append(Draft(RecordedEvent(Kind.CLEAR, 0, t, t, event.line, entered=False)))
            self._boots, self._begun, self._again = len(self.drafts), t, False
        elif event.kind is Kind.WRMSR and event.line and event.value in (MSR_ASYNC_PF_INT, MSR_ASYNC_PF_EN):
            if self._boots >= 0:
                clear = self.drafts[self._boots - 1]
                clear.mark = replace(clear.mark, entered=True)
            self.over()

    def _starts(self) -> bool:
        """It has begun a life, in which it has not come to its program."""
        return 0 <= self._begun <= self._entry and self._boots >= 0

    def _by_program(self, event: Event) -> bool:
        """The vCPU whose thread sends the INIT runs its own."""
        return any(peer._tid == event.tid and peer._boots < 0 for peer in self.peers)

    def over(self) -> None:
        """The vCPU runs its program again, or the recording ends."""
        if self._boots >= 0:
            del self.drafts[self._boots :]
        self._boots = -1
