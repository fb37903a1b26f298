# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest's scheduler on one vCPU (docs/formats/probe.md section 5): which item runs next."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.contract.words import Op
from harness.model.events import WAKE_ALL_TOKEN
from harness.model.simulation.engine import Signal
from harness.model.simulation.situation import Step


@dataclass(slots=True, eq=False)
class Task:
    """One item that was started.  ``token``: it waits for this token's READY; 0: for none."""

    step: Step
    ended: bool = False
    token: int = 0


@dataclass(slots=True, eq=False)
class ProbeVcpu:
    """Items in order; a touch that got a token is put aside, the next one starts; what READY names runs first."""

    steps: tuple[Step, ...]
    tasks: list[Task] = field(default_factory=list)
    runnable: list[Task] = field(default_factory=list)
    adopted: list[Task] = field(default_factory=list)  # put aside on a vCPU that went offline
    early: set[int] = field(default_factory=set)  # READY came before its token
    paused: int = -1  # index of the step whose pause is over
    past: int = -1  # index of the last step that it is past
    progress: Signal = field(default_factory=Signal)  # it came past one more

    @property
    def finished(self) -> bool:
        """All items of this vCPU have ended, or were lost in a reset."""
        return len(self.tasks) == len(self.steps) and all(t.ended for t in self._all)

    @property
    def waiting(self) -> bool:
        """An item put aside waits for its READY."""
        return any(t.token for t in self._all)

    @property
    def _all(self) -> list[Task]:
        return self.tasks + self.adopted

    def resume(self) -> Task | None:
        """The runnable item that started first."""
        if not self.runnable:
            return None
        self.runnable.sort(key=lambda t: t.step.index)
        return self.runnable.pop(0)

    def next_step(self) -> Step | None:
        """The step that would start next; None at the end or while an item put aside says ``wait``."""
        if len(self.tasks) == len(self.steps) or any(t.token and t.step.wait for t in self._all):
            return None
        step = self.steps[len(self.tasks)]
        return None if step.kind is Op.WAIT and self.waiting else step

    def behind(self, task: Task) -> Step | None:
        """The step that the delivery of this task's token performs, on the page that is its stack."""
        at = len(self.tasks)
        last = at > 0 and self.tasks[-1] is task and at < len(self.steps)
        return self.steps[at] if last and self.steps[at].by_token else None

    @property
    def gates(self) -> Step | None:
        """The step under way whose page is the IDT: each interrupt that comes first has its gate there, too."""
        task = self.tasks[-1] if self.tasks else None
        return task.step if task and not task.ended and task.step.in_delivery and not task.step.write else None

    def start(self, step: Step) -> Task:
        """The item has started."""
        task = Task(step)
        self.tasks.append(task)
        return task

    @property
    def keeps_off(self) -> bool:
        """sched.c:keeps_off: what came with interrupts off waits for the next step, too."""
        step = None if self.runnable else self.next_step()
        return step is not None and step.kind in (Op.WRMSR, Op.LAPIC) and not step.interrupts

    def comes_past(self) -> bool:
        """sched.c:past: it looks for what to do next.  Whether it is past more steps than when it last did."""
        if self.runnable or not self.tasks or any(t.token and t.step.wait for t in self._all):
            return False
        before, self.past = self.past, self.tasks[-1].step.index
        return self.past > before

    def pauses_first(self, step: Step) -> bool:
        """The step has a pause before it that is not over."""
        return step.pause_ns > 0 and step.kind not in (Op.PAUSE, Op.PAGING) and self.paused != step.index

    def put_aside(self, task: Task, token: int) -> None:
        """#PF with the flags word set: the item waits for this token, unless its READY was there before."""
        if token in self.early:
            self.early.discard(token)
            self.runnable.append(task)
        else:
            task.token = token

    def ready(self, token: int) -> None:
        """The READY interrupt (or the guest's own wake-all when it disables EN)."""
        woken = [t for t in self._all if t.token and token in (WAKE_ALL_TOKEN, t.token)]
        for task in woken:
            task.token = 0
            self.runnable.append(task)
        if not woken and token not in (0, WAKE_ALL_TOKEN):
            self.early.add(token)

    def give_away(self) -> list[Task]:
        """The vCPU went offline: what is runnable goes on elsewhere, its items count as ended here."""
        moved = [Task(t.step) for t in self.runnable]
        for task in self.runnable:
            task.ended = True
        self.runnable.clear()
        return moved

    def adopt(self, tasks: list[Task]) -> None:
        """Tasks of a vCPU that went offline run here."""
        self.adopted += tasks
        self.runnable += tasks

    def lose_tasks(self) -> None:
        """The machine was reset: what was put aside is forgotten, the program goes on behind it."""
        for task in self._all:
            task.ended = True
            task.token = 0
        self.runnable.clear()
        self.early.clear()
