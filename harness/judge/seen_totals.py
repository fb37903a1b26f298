# SPDX-License-Identifier: GPL-2.0-or-later
"""The totals that a capture shows, under the names of the prediction."""

from __future__ import annotations

import re
from collections import Counter

from harness.contract.plan import POOL_GPA, GuestKind
from harness.contract.probe_abi import SECTORS_PER_PAGE, Record
from harness.evidence.decode import Evidence
from harness.evidence.resets import boots
from harness.judge.align import in_boot
from harness.judge.episodes import Episode, outcome, split
from harness.judge.own_faults import own_faults
from harness.judge.rules_context import KERNEL_HALF
from harness.model.events import Event, Kind
from harness.model.kernels import KernelModel
from harness.model.outcomes import ASYNC, Outcome
from harness.model.protocol.checker_types import Counts

_QUEUE_WRITE = re.compile(r'"kind": "write", "path": "/sys/block/[^/"]+/queue/(\w+)"')


def seen_totals(evidence: Evidence, counts: Counts, kernel: KernelModel) -> dict[str, int]:
    """Counted by the protocol checker, by the devices' bios, and by the kernel's own counters."""
    top = evidence.plan.guest.memory_mib << 20
    probe = evidence.plan.guest.kind is GuestKind.PROBE
    booted, planned = boots(evidence.of(Kind.CLEAR, Kind.WRMSR)), {page.gpa >> 12 for page in evidence.plan.pages}
    pool = [
        e
        for e in evidence.of(Kind.PF)
        if POOL_GPA <= e.gpa < top and (e.gpa >> 12 in planned or not in_boot(booted, e))
    ]
    found = {
        "PF": len(pool) if probe else sum(e.gpa < top for e in evidence.of(Kind.PF)),
        "TRY": counts.try_,
        "NP": counts.np,
        "NPt": counts.npt,
        "NPh": counts.nph,
        "REP": counts.rep,
        "FAIL": counts.fail,
        "DONE": counts.done,
        "RDY": counts.rdy,
        "RDY_ALL": counts.rdy_wake_all,
        "INJ": counts.inj,
        "ACC": counts.acc,
        "ACK": counts.ack,
        "GP": sum(not e.flag and "#GP" in e.text for e in evidence.of(Kind.INJ_OTHER)),
    }
    if evidence.guest is not None:
        found["NMI"] = sum(record.kind is Record.NMI for records in evidence.guest.vcpus for record in records)
    dev = evidence.facts.swap_dev if evidence.facts else 0
    if not probe and evidence.facts is not None:
        found |= _by_outcome(evidence, kernel, dev, probed=evidence.facts.has_mm_fault)
    if dev:
        reads = [e for e in evidence.of(Kind.BIO) if e.flag and e.dev == dev]
        for who, theirs in (("V", [e for e in reads if e.vcpu >= 0]), ("W", [e for e in reads if _by_worker(e)])):
            found[f"BIO_{who}"] = len(theirs)
            if not _read_ahead_undone(evidence):
                found[f"READ_{who}"] = sum(e.data for e in theirs) // SECTORS_PER_PAGE
    found.update(evidence.counters)
    if counts.undecided and "PF_GUEST" not in found:  # no event tells what these were; the counter would
        del found["NPt"], found["NPh"]
    elif counts.undecided:
        queued = min(max(found["PF_GUEST"] - counts.npt, 0), counts.undecided)
        found["NPt"] += queued
        found["NPh"] += counts.undecided - queued
    if probe and "MIN_V" in found:
        own = own_faults(evidence)
        found["MIN_V"] -= own.minor
        found["MAJ_V"] -= own.major
    if kernel.memcg_events_batched:
        found.pop("PGMAJ", None)  # memcontrol.c:__count_memcg_events keeps up to 32 per CPU back; PGMAJ_HOST remains
    return found


def _by_outcome(evidence: Evidence, kernel: KernelModel, dev: int, *, probed: bool) -> dict[str, int]:
    """A Linux guest's page faults by what became of them; a guest traced without the probes on handle_mm_fault shows
    only those that slept or were asynchronous."""
    top, base = evidence.plan.guest.memory_mib << 20, evidence.ram_hva()
    episodes = [(e, outcome(e, dev, probed)) for e in split(evidence.events, base) if e.gpa < top]
    found = Counter(what for _, what in episodes)
    waited = (*ASYNC, Outcome.REPEATED, Outcome.SYNC, Outcome.BLOCK)
    seen = {"WAITED": sum(found[o] for o in waited), "SYNC": found[Outcome.SYNC], "BLOCK": found[Outcome.BLOCK]}
    waits = [e for e, what in episodes if what in (Outcome.SYNC, Outcome.BLOCK)]
    seen["ASYNC"] = seen["WAITED"] - sum(_may_be_asynchronous(e, kernel, dev) for e in waits)
    return seen | ({"FAST": found[Outcome.FAST], "MINOR": found[Outcome.MINOR]} if probed else {})


def _may_be_asynchronous(episode: Episode, kernel: KernelModel, dev: int) -> bool:
    """At CPL 3 interrupts are on: kvm_can_do_async_pf refuses only while an event is being delivered.  Where KVM tried
    (the queue was full), or no rip is traced, nothing is said, nor where the thread read a single page, which is polled
    for (mm/swap_state.c:swap_vma_readahead, do_poll)."""
    user = 0 < episode.start.data < KERNEL_HALF
    polled = kernel.do_poll and sum(e.data for e in episode.of(Kind.BIO) if e.flag and e.dev == dev) == SECTORS_PER_PAGE
    return user and not episode.delivering and not polled and episode.first(Kind.TRY) is None


def _by_worker(event: Event) -> bool:
    return event.worker and event.vcpu < 0


def _read_ahead_undone(evidence: Evidence) -> bool:
    """The agent has set another limit of the queue behind read_ahead_kb, as it once did: from 6.11 on that makes it the
    device's own again (block/blk-settings.c:blk_apply_bdi_limits), and how much is read is not what was planned."""
    written = _QUEUE_WRITE.findall(evidence.text("journal.jsonl"))
    return "read_ahead_kb" in written[:-1]
