# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenario -> Plan: names become addresses, steps become items, nothing is left to decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from harness.contract import plan as p
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT
from harness.scenario.pages import lay_out, select
from harness.scenario.schema import LAPIC_WORDS, PAGING_WORDS, HostStep, Scenario, Step

MSRS = {"EN": MSR_ASYNC_PF_EN, "INT": MSR_ASYNC_PF_INT, "ACK": MSR_ASYNC_PF_ACK}


def build_plan(scenario: Scenario, nonce: int) -> p.Plan:
    """The plan of a checked scenario.  ``nonce``: 64 bits chosen by the caller, so that this stays pure."""
    placed = lay_out(scenario.pages)
    g = scenario.guest
    actions: list[tuple[p.HostAction, ...]] = []
    items: list[p.Item] = []
    last: dict[str, int] = {}  # of each step that has a name, the index of its last item
    for step in scenario.steps:
        for item in _items(step, placed, actions, last):
            items.append(p.replace_index(item, len(items)))
        if step.name:
            last[step.name] = len(items) - 1
    return p.Plan(
        scenario=scenario.id,
        title=scenario.title,
        nonce=nonce,
        guest=p.Guest(
            kind=g.kind,
            machine=g.machine,
            vcpus=g.vcpus,
            cores=g.cores,
            memory_mib=g.memory_mib,
            cpu=g.cpu,
            irqchip=g.irqchip,
            cpu_pm=g.cpu_pm,
            realtime=g.realtime,
            apf=scenario.apf,
            l2=scenario.l2,
            idle=g.idle,
            cmdline=g.cmdline,
            workload=g.workload,
            workload_pages=g.workload_pages,
        ),
        memory=scenario.memory,
        swap=replace(scenario.swap, error=tuple(name for name, _ in select(placed, scenario.swap.error))),
        pages=tuple(
            p.Page(gpa=gpa, start=scenario.pages[name].start, name=f"{name}[{i}]")
            for name, gpas in placed.items()
            for i, gpa in enumerate(gpas)
        ),
        items=tuple(items),
        host_actions=tuple(actions),
        timed=tuple(p.TimedAction(t.at_ms, _actions(t.host, placed)) for t in scenario.timed),
        kernel_params=tuple(sorted(scenario.kernel_params.items())),
        kernel_params_at_go=tuple(sorted(scenario.kernel_params_at_go.items())),
        deadline_s=scenario.deadline_s,
    )


def _actions(steps: tuple[HostStep, ...], placed: Mapping[str, tuple[int, ...]]) -> tuple[p.HostAction, ...]:
    return tuple(p.HostAction(h.do, select(placed, h.page)[0][1] if h.page else h.arg) for h in steps)


def _items(
    step: Step,
    placed: Mapping[str, tuple[int, ...]],
    actions: list[tuple[p.HostAction, ...]],
    last: Mapping[str, int],
) -> Iterator[p.Item]:
    common = p.Item(
        index=0,
        op=p.Op.PAUSE,
        vcpu=step.vcpu,
        access=step.access,
        cpl=step.cpl,
        interrupts=step.interrupts,
        shadow=step.shadow,
        gif=step.gif,
        tpr=step.tpr,
        in_service=step.in_service,
        no_paging=step.no_paging,
        level=step.level,
        by=step.by,
        wait=step.then == "wait",
        pause_us=step.pause_us,
    )
    if step.touch:
        for name, gpa in select(placed, step.touch):
            yield p.changed(common, op=p.Op.TOUCH, gpa=gpa, page=name)
        return
    if step.host:
        actions.append(_actions(step.host, placed))
        yield p.changed(common, op=p.Op.HOST, value=len(actions) - 1)
    elif step.wrmsr:
        msr = MSRS[step.wrmsr] if step.wrmsr in MSRS else int(step.wrmsr, 0)
        yield p.changed(common, op=p.Op.WRMSR, msr=msr, value=msr_value(step.value, step.vcpu))
    elif step.lapic:
        yield p.changed(common, op=p.Op.LAPIC, value=LAPIC_WORDS.index(step.lapic))
    elif step.paging:
        yield p.changed(common, op=p.Op.PAGING, value=PAGING_WORDS.index(step.paging))
    elif step.timer_us >= 0:
        yield p.changed(common, op=p.Op.TIMER, value=step.timer_us)
    elif step.clear_token:
        yield p.changed(common, op=p.Op.CLEAR_TOKEN)
    elif step.reset:
        yield p.changed(common, op=p.Op.RESET)
    elif step.eject >= 0:
        yield p.changed(common, op=p.Op.EJECT, value=step.eject)
    elif step.init >= 0:
        yield p.changed(common, op=p.Op.INIT, value=step.init)
    elif step.page_fault:
        yield p.changed(common, op=p.Op.PAGE_FAULT)
    elif step.wait_all:
        yield p.changed(common, op=p.Op.WAIT)
    elif step.after:
        yield p.changed(common, op=p.Op.AFTER, value=last[step.after])
    else:
        yield common


def msr_value(value: int | str, vcpu: int) -> int:
    """The number that a checked ``value`` of wrmsr stands for."""
    if isinstance(value, int):
        return value
    if value.startswith("own|"):
        return (p.SHARED_GPA + p.PAGE_SIZE * vcpu) | int(value[4:], 0)
    return int(value, 0)
