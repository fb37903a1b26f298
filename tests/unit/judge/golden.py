# SPDX-License-Identifier: GPL-2.0-or-later
"""The golden captures of tests/data, and changes of their trace that leave no trace in the counts beside it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path

from harness.agent.pages.page_content import page_content
from harness.contract.capture import (
    FORMAT,
    CounterSnapshot,
    Facts,
    FinalState,
    GateLog,
    HostFacts,
    MemoryLeft,
    OfRun,
    PageLeft,
    Precondition,
    RunEnd,
    RunFacts,
    TraceStats,
    log_marks,
)
from harness.contract.plan import Backing, Plan, SwapKind, from_json
from harness.contract.probe_abi import LEAF_BITS, PAGE_SIZE, RECORD_CODEC, RESETS_BITS, FeaturesLeaf, Record
from harness.contract.structure import structure, to_json
from harness.contract.words import Access
from harness.evidence import format_1
from harness.evidence.host_log import LOG
from harness.model.cpu_model import Feature, parse_cpu
from harness.model.kernels import find_kernel
from harness.prediction import pv_features

CAPTURES = Path(__file__).parents[2] / "data/captures"
NAMES = sorted(p.name for p in CAPTURES.iterdir())
Files = dict[str, bytes]
_RECORDS: Mapping[str, type[OfRun]] = {
    "facts.json": Facts, "precondition.json": Precondition, "trace/stats.json": TraceStats, "after.json": FinalState,
    "counters/before.json": CounterSnapshot, "counters/after.json": CounterSnapshot, "gate.json": GateLog,
}  # fmt: skip
"""Those that each format from 2 on has."""
_WRITTEN = re.compile(r"# entries-in-buffer/entries-written: \d+/\d+")
_NOT_PRESENT = re.compile(r"kvm_async_pf_not_present: token \S+ gva (0x[0-9a-f]+)")


def load(name: str) -> Files:
    """A capture by name, its files by their paths in it."""
    folder = CAPTURES / name
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def is_event(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def edit_trace(files: Files, change: Callable[[list[str]], list[str]], *, recount: bool = True) -> Files:
    """With other lines in the trace; ``recount``: as if the kernel had written just these."""
    lines = change(files["trace/events.txt"].decode().splitlines())
    if recount:
        lines, stats = recounted(lines, files["trace/stats.json"])
        files = {**files, "trace/stats.json": stats}
    return {**files, "trace/events.txt": "\n".join(lines).encode() + b"\n"}


def recounted(lines: Sequence[str], stats: bytes) -> tuple[list[str], bytes]:
    """The lines with the right counts in their head, and stats.json with the right entries."""
    cpus = Counter(int(m[1]) for line in lines if is_event(line) and (m := re.search(r"\[(\d{3})\]", line)))
    table = json.loads(stats)
    rows = table.get("cpus", table)
    for name, row in rows.items():
        row["entries"] = cpus[int(name.removeprefix("cpu"))]
    total, lost = sum(cpus.values()), sum(row["overrun"] for row in rows.values())
    head = f"# entries-in-buffer/entries-written: {total}/{total + lost}"
    return [_WRITTEN.sub(head, line) for line in lines], json.dumps(table).encode()


def of_today(files: Mapping[str, bytes]) -> Files:
    """A capture as the agent would write it today; what it lacks is as a sound kernel leaves it."""
    return _from_2(files) if json.loads(files["end.json"]).get("format", 1) > 1 else _from_1(files)


def _from_2(files: Mapping[str, bytes]) -> Files:
    records = {name: structure(cls, json.loads(files[name])) for name, cls in _RECORDS.items() if name in files}
    return _written(files, records, replace(structure(RunEnd, json.loads(files["end.json"])), format=FORMAT))


def _written(files: Mapping[str, bytes], records: Mapping[str, OfRun], end: RunEnd) -> Files:
    """With these records, the run's nonce in each, the marks of the kernel's log, and nothing left behind."""
    plan = from_json(Plan, files["plan.json"])
    swaps = plan.memory.backing is not Backing.FILE and plan.swap.kind not in (SwapKind.NONE, SwapKind.USERFAULT)
    left = MemoryLeft(0, 0, slots=0 if swaps else None)
    all_ = {**{name: _whole(plan, record) for name, record in records.items()}, "left.json": left}
    told = {name: to_json(replace(record, nonce=end.nonce)).encode() for name, record in all_.items()}
    begins, ends = (f"[    0.000000] {mark}\n".encode() for mark in log_marks(end.nonce))
    texts = {LOG: begins + files[LOG] + ends, "guest/console.txt": _console(plan, files)}
    texts |= {"guest/log.bin": with_features(files["guest/log.bin"], plan)} if "guest/log.bin" in files else {}
    texts |= {} if "qmp.jsonl" in files else {"qmp.jsonl": b'{"t": 1.0, "dir": "in", "message": {"QMP": {}}}\n'}
    return {**files, **told, **texts, "end.json": to_json(end).encode()}


def with_features(log: bytes, plan: Plan) -> bytes:
    """A log of which each boot says what a sound kernel and QEMU 7.2 offer a guest of this plan."""
    offered = pv_features(plan, find_kernel("nowait-6.1"))
    eax = sum(1 << feature for feature in Feature if offered.shows(feature))
    leaf = FeaturesLeaf.FIRST if parse_cpu(plan.guest.cpu).flags.get("kvm", True) else FeaturesLeaf.NONE
    return edit_boots(log, lambda resets, was: (resets, was or leaf << RESETS_BITS | eax << RESETS_BITS + LEAF_BITS))


def edit_boots(log: bytes, change: Callable[[int, int], tuple[int, int]]) -> bytes:
    """``change``: the number of resets of each BOOT, and what its b has above."""
    records = bytearray(log)
    for at in range(PAGE_SIZE, len(records), RECORD_CODEC.size):
        tsc, kind, vcpu, item, a, b = RECORD_CODEC.unpack_from(records, at)
        if kind == Record.BOOT:
            resets, above = change(b % (1 << RESETS_BITS), b >> RESETS_BITS << RESETS_BITS)
            RECORD_CODEC.pack_into(records, at, tsc, kind, vcpu, item, a, resets | above)
    return bytes(records)


def _console(plan: Plan, files: Mapping[str, bytes]) -> bytes:
    """What a probe guest says for as long as there is one; some captures were kept without it."""
    ready = f"apf-probe: ready, nonce {plan.nonce:016x}\n".encode()
    return files["guest/console.txt"] if ready.strip() in files["guest/console.txt"] else ready


def _whole(plan: Plan, record: OfRun) -> OfRun:
    """What no older format had, as a sound host and kernel have it."""
    match record:
        case Facts():
            return replace(record, host=replace(record.host, compaction=True))
        case FinalState():
            pages = {gpa: _left(plan, gpa, page) for gpa, page in record.pages.items()}
            return replace(record, pages=pages, areas=record.areas or {})
        case CounterSnapshot():
            text = {"swaps": record.swaps or "Filename\n", "interrupts": record.interrupts or "CPU0\n"}
            majors, anon = record.other_majors or (0, 0), record.anon_pages or 0
            return replace(record, **text, other_majors=majors, anon_pages=anon)
        case _:
            return record


def _left(plan: Plan, gpa: int, page: PageLeft) -> PageLeft:
    """What a write leaves is the guest physical address and the nonce (guest-images/probe/sched.c)."""
    if not page.present:
        return PageLeft(page.name, False)
    written = any(item.gpa == gpa and item.access is Access.WRITE for item in plan.items)
    word = gpa ^ plan.nonce if written else int.from_bytes(page_content(gpa, plan.nonce)[8:16], "little")
    of_a_file, told = plan.memory.backing is Backing.FILE, None if page.large else True
    return replace(
        page, dirty=bool(page.dirty), swap_cache=bool(page.swap_cache), large=bool(page.large), word=word,
        uptodate=told, swap_backed=told and not of_a_file, charged=None if of_a_file else told,
        on_list=None if plan.guest.realtime else told,
    )  # fmt: skip


def _from_1(files: Mapping[str, bytes]) -> Files:
    raw = {name: json.loads(data) for name, data in files.items() if name.endswith(".json")}
    old = raw["facts.json"]
    host = {f.name: old[f.name] for f in fields(HostFacts) if f.default is MISSING}
    known = {**old, **old["settings"]}
    run = {f.name: known.get(f.name) for f in fields(RunFacts) if f.default is MISSING or f.name in known}
    records: dict[str, OfRun] = {
        "facts.json": structure(Facts, {"host": host, "run": run}),
        "precondition.json": format_1.precondition(raw["precondition.json"]),
        "trace/stats.json": format_1.trace_stats(raw["trace/stats.json"]),
    }
    records |= {f"counters/{n}.json": format_1.counters(raw[f"counters/{n}.json"]) for n in ("before", "after")}
    plan = from_json(Plan, files["plan.json"])
    zero = dict.fromkeys(range(plan.guest.vcpus), 0)
    # A worker asks for a page to write to it, which frees its swap slot.
    freed = {int(gva, 16) & ~0xFFF for gva in _NOT_PRESENT.findall(files["trace/events.txt"].decode())}
    pages = {p.gpa: PageLeft(p.name, True, p.gpa in freed, p.gpa not in freed) for p in plan.pages}
    left = FinalState(dict.fromkeys(zero, True), zero, zero, pages)
    if "after.json" in raw:
        left = replace(format_1.final_state(raw["after.json"]), shared_flags=zero, shared_token=zero)
    records["after.json"] = left
    return _written(files, records, replace(format_1.run_end(raw["end.json"]), format=FORMAT))


def is_of_today(files: Mapping[str, bytes]) -> bool:
    """Whether a capture is as the agent writes it today."""
    return f'"format": {FORMAT}'.encode() in files["end.json"]
