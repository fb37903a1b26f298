# SPDX-License-Identifier: GPL-2.0-or-later
"""The periodic timer of one vCPU's LAPIC (arch/x86/kvm/lapic.c:apic_timer_fn)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contract.probe_abi import VEC_TIMER
from harness.model.simulation.engine import Process, Wait
from harness.model.simulation.kvm_vcpu import KvmVcpu


@dataclass(slots=True, eq=False)
class LapicTimer:
    """``period_ns``: 0: it is stopped."""

    kvm: KvmVcpu
    period_ns: int = 0
    _life: int = 0

    def start(self, period_ns: int) -> None:
        """Set it anew, or stop it with a period of 0."""
        self.reset()
        self.period_ns = period_ns
        engine, replay = self.kvm.world.engine, self.kvm.world.replay
        if period_ns and replay is not None:
            engine.spawn(self._recorded(self._life, replay.recorded.ticks[self.kvm.index]))
        elif period_ns:
            engine.spawn(self._ticks(self._life, period_ns), period_ns)

    def reset(self) -> None:
        """What was set until now comes no more."""
        self._life += 1

    def _recorded(self, life: int, ticks: tuple[int, ...]) -> Process:
        """Those that were recorded until the timer is set anew: one may come while the guest is about to stop it (masks
        its LVT, then writes a count of 0), and then waits in the IRR."""
        for tick_ns in ticks:
            if tick_ns < self.kvm.world.engine.now:
                continue
            yield Wait(until_ns=tick_ns)
            if life != self._life and self.period_ns:
                return
            self.kvm.timer_tick(VEC_TIMER)

    def _ticks(self, life: int, period_ns: int) -> Process:
        while life == self._life:
            self.kvm.timer_tick(VEC_TIMER)
            yield Wait(until_ns=self.kvm.world.engine.now + period_ns)
