# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes with each kind of guest: steps with a probe guest, a workload with a Linux guest or a host program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from harness.contract.host_program import HOST_PROGRAMS, SHORT_PROGRAM, WAYS_PROGRAM, cases
from harness.contract.plan import Apf, Backing, GuestKind, HostWord, Memory, SwapKind
from harness.errors import UsageError
from harness.scenario import bounds
from harness.scenario.schema import GuestSpec, Scenario

_WORKLOADS = ("boot", "touch", "tasks", "nmi", "l2")
_TOUCHING = ("touch", "tasks", "nmi", "l2")


def check_guest(s: Scenario) -> Iterator[str]:
    """Problems as "$.key: text"."""
    g = s.guest
    yield from bounds.number("$.guest.workload_pages", g.workload_pages, 0, bounds.POOL_PAGES)
    if g.kind is not GuestKind.PROBE and s.apf != Apf():
        yield f"$.apf: the probe guest is set up by it, and a guest of kind = {g.kind} would not look at it"
    if g.kind is GuestKind.LINUX:
        yield from _linux(s)
    elif g.kind is GuestKind.HOST_PROGRAM:
        yield from _host_program(s)
    else:
        if g.workload or g.workload_pages or g.cmdline:
            yield "$.guest.workload, $.guest.cmdline: for linux guests and host programs; the probe guest runs steps"
        if not s.steps:
            yield "$.steps: a probe guest with nothing to do proves nothing"


def _linux(s: Scenario) -> Iterator[str]:
    g = s.guest
    if g.workload not in _WORKLOADS:
        yield f"$.guest.workload: {g.workload[: bounds.MAX_NAME]!r} is not one of {', '.join(_WORKLOADS)}"
    if s.pages or s.steps:
        yield "$.pages, $.steps: a linux guest runs a workload; pages and steps are for the probe guest"
    if g.idle != GuestSpec().idle:
        yield "$.guest.idle: what a probe vCPU does; a linux guest has idle=poll for its cmdline"
    if g.workload == "nmi" and g.vcpus < 2:
        yield "$.guest.vcpus: the workload nmi needs two: one asks for the NMIs that the other takes"
    if g.workload in _TOUCHING:
        yield from _swapped_out(s)
    elif g.workload_pages:
        yield f"$.guest.workload_pages: the workload {g.workload[: bounds.MAX_NAME]} touches none"
    for i, timed in enumerate(s.timed):
        for n, word in enumerate(h.do for h in timed.host):
            if word in (HostWord.SAVEVM, HostWord.LOADVM):  # the agent gives its QEMU no disk for them
                yield f"$.timed[{i}].host[{n}]: {word} is for a probe guest"
            elif word is HostWord.RESET and g.workload in _TOUCHING:
                yield f"$.timed[{i}].host[{n}]: a workload that touches pages is let go once, and not behind a reset"


def _swapped_out(s: Scenario) -> Iterator[str]:
    """A workload waits, when it has filled its pages, until all of the VM is on the swap device."""
    g = s.guest
    if s.swap.kind is SwapKind.GATED:
        yield "$.swap.kind: no plan says which read of a linux guest belongs to which fault; use dm-delay or zram"
    elif s.swap.kind is SwapKind.NONE:
        yield f"$.swap.kind: the workload {g.workload} is swapped out; use dm-delay or zram"
    if s.memory.backing is Backing.FILE:
        yield "$.memory.backing: a linux guest is swapped out, which pages of a file are not; use anon or memfd"
    if g.workload_pages < 1:
        yield f"$.guest.workload_pages: the workload {g.workload} needs at least one page"
    for key, mib in (("guest.memory_mib", g.memory_mib), ("swap.size_mib", s.swap.size_mib)):
        if g.workload_pages >= mib << 8:
            yield f"$.{key}: {mib} MiB have no room for {g.workload_pages} pages of the workload"


_WITH_ARGUMENTS = {SHORT_PROGRAM: False, WAYS_PROGRAM: True}


def _host_program(s: Scenario) -> Iterator[str]:
    g = s.guest
    if g.workload not in HOST_PROGRAMS:
        yield f"$.guest.workload: {g.workload[: bounds.MAX_NAME]!r} is not one of {', '.join(HOST_PROGRAMS)}"
        return
    try:
        cases(g.workload, g.cmdline)
    except UsageError as exc:
        yield f"$.guest.cmdline: {exc.message[: bounds.MAX_PROSE]}"
    if g.workload in _WITH_ARGUMENTS and bool(g.cmdline.split()) is not _WITH_ARGUMENTS[g.workload]:
        yield f"$.guest.cmdline: {g.workload} {'wants' if _WITH_ARGUMENTS[g.workload] else 'takes no'} arguments"
    plain = GuestSpec(kind=g.kind, workload=g.workload, cmdline=g.cmdline)
    made = (f.name for f in fields(g) if getattr(g, f.name) != getattr(plain, f.name))
    yield from (f"$.guest.{name}: a host program makes its VM itself, and would not look at it" for name in made)
    if s.memory != Memory():
        yield "$.memory: a host program makes its VM itself, and would not look at it"
    if s.pages or s.steps or s.timed or s.swap.kind is not SwapKind.NONE:
        yield '$.pages, $.steps, $.timed, $.swap: a host program is its own VMM; leave them out, and swap.kind = "none"'
