# SPDX-License-Identifier: GPL-2.0-or-later
"""How long things take that the model does not know, and who wins a race, in a run that follows no recording.

Either as a Timing has it throughout, or each time by itself: every entry of a vCPU, work, read and host action may be
late, later than all that others do meanwhile.  A run in which one of them is late has another order of what was free to
come in any; so whoever runs through these choices runs through the orders, the likeliest first (delay-bounded
scheduling: Emmi, Qadeer, Rakamaric, POPL 2011).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.simulation.choices import Choices
from harness.model.simulation.situation import Situation, Timing

_LATE_NS = 100_000_000
"""More than most programs take that do not pause, in nanoseconds."""


def late_ns(situation: Situation) -> int:
    """How late what is late is: later than all that others do meanwhile; before a run also behind a pause of the guest.

    Of a run that hangs the evidence says that no read was as late.
    """
    pauses = (step.pause_ns for step in situation.steps if situation.before_run)
    return _LATE_NS + max(pauses, default=0)


@dataclass(slots=True)
class Pace:
    """The latencies of one run.

    :ivar choices: asked each time; None: all is as ``timing`` says.
    :ivar late_ns: how late what is late is.
    :ivar races_device: a read may end before its submitter tries the page's lock, as none does that a gate holds.
    :ivar races_vcpus: there is another vCPU that may map what a ready event maps.
    """

    timing: Timing
    choices: Choices | None = None
    late_ns: int = _LATE_NS
    races_device: bool = True
    races_vcpus: bool = True

    @staticmethod
    def of(situation: Situation, choices: Choices | None) -> Pace:
        """With the races that there can be in a situation."""
        return Pace(situation.timing, choices, late_ns(situation), not situation.device.gated, situation.vcpus > 1)

    def start_ns(self, vcpu: int) -> int:
        """From go to the vCPU's first instruction."""
        return self._or_late(self.late_ns if self.timing.first not in (-1, vcpu) else 0, f"vCPU {vcpu} begins late")

    def exit_ns(self, vcpu: int) -> int:
        """One exit, its handling and the entry."""
        return self._or_late(self.timing.exit_ns, f"vCPU {vcpu} is preempted before an entry")

    def wake_ns(self, vcpu: int) -> int:
        """From what wakes the vCPU's thread, asleep in a halt, to its first instruction."""
        return self._or_late(self.timing.wake_ns, f"vCPU {vcpu} is let run late when it is woken")

    def worker_ns(self, vcpu: int, gfn: int) -> int:
        """From schedule_work to the worker's first instruction."""
        return self._or_late(self.timing.worker_ns, f"a work of vCPU {vcpu} for gfn {gfn:#x} begins late")

    def done_ns(self, vcpu: int, gfn: int) -> int:
        """From the worker's last look at the page to its entry in the list of what is done."""
        return self._or_late(self.timing.done_ns, f"a work of vCPU {vcpu} for gfn {gfn:#x} ends late")

    def read_ns(self, vpn: int) -> int:
        """What a read takes longer than the device's delay, or than the rule by which it is held."""
        return self._or_late(self.timing.device_ns, f"the read of page {vpn:#x} ends late")

    def neighbour_ns(self, vpn: int) -> int:
        """How much later than their target the other pages of a read-ahead are there."""
        return self._or_late(self.timing.neighbour_ns, f"what was read ahead with page {vpn:#x} is late")

    def vmm_ns(self) -> int:
        """From a triple fault to when the VMM has stopped all vCPUs."""
        return self._or_late(self.timing.vmm_ns, "the VMM is late to reset the machine")

    def host_ns(self) -> int:
        """The agent between two host actions."""
        return self._or_late(self.timing.host_ns, "a host action is late")

    @property
    def may_read_first(self) -> bool:
        """Whether reads_first() is to be asked."""
        return self.timing.reads_first or (self.choices is not None and self.races_device)

    def reads_first(self, vpn: int) -> bool:
        """Whether the submitter of a read finds it over when it tries the page's lock."""
        if not self.races_device:
            return self.timing.reads_first
        return self._or_not(
            self.timing.reads_first, f"the read of page {vpn:#x} ends before its submitter tries the lock"
        )

    def prefetch_lost(self, vcpu: int, gfn: int) -> bool:
        """Whether the mapping before a ready event loses a race against another vCPU: RET_PF_RETRY."""
        if not self.races_vcpus:
            return self.timing.prefetch_lost
        return self._or_not(self.timing.prefetch_lost, f"vCPU {vcpu}'s mapping of gfn {gfn:#x} loses a race")

    def _or_late(self, usual: int, why: str) -> int:
        return self.late_ns if self._chosen(why) else usual

    def _or_not(self, usual: bool, why: str) -> bool:
        return usual != self._chosen(why)

    def _chosen(self, why: str) -> bool:
        """Whether this is what is other in the run; never, where nobody chooses."""
        return self.choices is not None and self.choices.ask(2, why) == 1
