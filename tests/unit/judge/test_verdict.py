# SPDX-License-Identifier: GPL-2.0-or-later
"""Golden captures of real runs: they pass as they are, fail under another model, and never pass when damaged."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import struct
from collections.abc import Callable

import pytest

from harness.contract.host_stalls import FILE, HostStalls, Stall, stalls_in
from harness.contract.structure import to_json
from harness.judge.verdict import judge_capture
from harness.model.kernels import KernelModel, find_kernel
from harness.status import Status
from tests.unit.judge.golden import NAMES, Files, edit_trace, load, of_today


def model() -> KernelModel:
    return find_kernel("nowait-6.1")


@pytest.mark.parametrize("name", NAMES)
def test_a_real_capture_passes_against_its_own_model(name: str) -> None:
    verdict = judge_capture(load(name), model())
    assert verdict.status is Status.PASS, verdict.findings


def test_a_flipped_prediction_fails_exactly_the_scenarios_that_it_concerns() -> None:
    """As if 6.1 had no do_poll: a window of one page would be asynchronous.  Only S23 has such windows."""
    flipped = dataclasses.replace(model(), do_poll=False)
    verdicts = {name: judge_capture(load(name), flipped) for name in NAMES}
    assert {name for name, v in verdicts.items() if v.status is not Status.PASS} == {"S23"}
    failed = verdicts["S23"]
    assert failed.status is Status.FAIL
    assert "predicted token, seen sync" in failed.reason and failed.findings[0].line > 0
    marked = [row for row in failed.timeline if row.marked]
    assert len(marked) == 1 and "kvm_page_fault" in marked[0].text


def test_the_other_variant_is_told_apart() -> None:
    for name in ("S23", "S29", "S61"):
        assert judge_capture(load(name), find_kernel("noio-6.1")).status is Status.FAIL, name


def drop(pattern: str) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        at = next(i for i, x in enumerate(lines) if re.search(pattern, x))
        return lines[:at] + lines[at + 1 :]

    return change


def double(pattern: str) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        at = next(i for i, x in enumerate(lines) if re.search(pattern, x))
        return [*lines[: at + 1], *lines[at:]]

    return change


def edit(pattern: str, new: str) -> Callable[[list[str]], list[str]]:
    def change(lines: list[str]) -> list[str]:
        at = next(i for i, x in enumerate(lines) if re.search(pattern, x))
        return [*lines[:at], re.sub(pattern, new, lines[at]), *lines[at + 1 :]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        drop("kvm_async_pf_ready: token 0x1000"),
        drop("kvm_async_pf_not_present"),
        drop("kvm_async_pf_completed"),
        drop("kvm_async_pf_repeated_fault"),
        drop(r"kvm_inj_exception: #PF"),
        drop("kvm_try_async_get_page"),
        drop("kvm_page_fault: .*0001008000"),
        drop("kvm_apic_accept_irq: .*vec 243"),
        drop("kvm_async_pf_ready: token 0xffffffff"),
        double("kvm_async_pf_ready: token 0x1000"),
        double("kvm_async_pf_not_present"),
        double("kvm_async_pf_completed"),
        double(r"kvm_inj_exception: #PF"),
        double("kvm_apic_accept_irq: .*vec 243"),
        edit("ready: token 0x1000", "ready: token 0x2000"),
        edit("not_present: token 0x1000", "not_present: token 0x1001"),
        edit("not_present: token 0x1000", "not_present: token 0x0"),
        edit("vec 243", "vec 244"),
        edit(
            r"block_bio_queue: (\d+,\d+) R(\w*) (\d+ \+ \d+) \[CPU 0/KVM\]", r"block_bio_queue: \1 W\2 \3 [CPU 0/KVM]"
        ),
    ],
)
def test_planted_damage_to_the_trace_is_a_fail(change: Callable[[list[str]], list[str]]) -> None:
    verdict = judge_capture(edit_trace(load("S29"), change), model())
    assert verdict.status is Status.FAIL
    assert verdict.findings


def test_any_line_cut_out_is_noticed() -> None:
    files = load("S29")
    count = files["trace/events.txt"].count(b"\n")
    for at in random.Random(0).sample(range(12, count), 40):
        cut = edit_trace(files, lambda lines, at=at: lines[:at] + lines[at + 1 :], recount=False)  # type: ignore[misc]
        assert judge_capture(cut, model()).status is Status.INCONCLUSIVE


@pytest.mark.parametrize("name", sorted(load("S29")))
def test_a_missing_file_is_never_a_pass_where_it_matters(name: str) -> None:
    files = load("S29")
    del files[name]
    status = judge_capture(files, model()).status
    needed = ("plan.json", "end.json", "facts.json", "precondition.json", "trace/events.txt", "trace/stats.json",
              "counters/before.json", "counters/after.json", "guest/log.bin", "guest/items.bin", "guest/console.txt",
              "host/dmesg.txt", "progress.jsonl")  # fmt: skip
    missed = name in needed or name.startswith("trace/formats/")
    assert status is (Status.INCONCLUSIVE if missed else Status.PASS)


@pytest.mark.parametrize("name", ["plan.json", "end.json", "facts.json", "precondition.json", "trace/events.txt",
                                  "trace/stats.json", "counters/before.json", "guest/log.bin"])  # fmt: skip
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_truncated_file_is_inconclusive(name: str, keep: float) -> None:
    files = load("S29")
    files[name] = files[name][: int(len(files[name]) * keep)]
    assert judge_capture(files, model()).status is Status.INCONCLUSIVE


def change_json(files: Files, name: str, change: Callable[[dict], None]) -> Files:  # type: ignore[type-arg]
    raw = json.loads(files[name])
    change(raw)
    return {**files, name: json.dumps(raw).encode()}


def test_lost_events_are_inconclusive() -> None:
    files = change_json(load("S29"), "trace/stats.json", lambda r: r["cpu0"].update(overrun=1))
    files = edit_trace(files, lambda lines: lines)
    verdict = judge_capture(files, model())
    assert verdict.status is Status.INCONCLUSIVE and "lost 1" in verdict.reason


def test_a_page_that_was_not_in_its_state_is_inconclusive() -> None:
    def present(raw: dict) -> None:  # type: ignore[type-arg]
        next(iter(raw["pages"].values()))["present"] = True

    def others(raw: dict) -> None:  # type: ignore[type-arg]
        raw["others_swapped"] = 2

    def gone(raw: dict) -> None:  # type: ignore[type-arg]
        raw["pages"].popitem()

    for change in (present, others, gone):
        verdict = judge_capture(change_json(load("S29"), "precondition.json", change), model())
        assert verdict.status is Status.INCONCLUSIVE and "precondition" in verdict.reason


def test_a_capture_of_another_run_is_inconclusive() -> None:
    files = change_json(load("S29"), "end.json", lambda r: r.update(nonce=1))
    assert "nonce" in judge_capture(files, model()).reason


@pytest.mark.parametrize(("counter", "first"), [("pswpin", "D65"), ("swap_ra", "total")])
def test_a_counter_that_moved_too_far_is_a_fail(counter: str, first: str) -> None:
    """A page more that was read from swap is no refault, too."""
    files = change_json(
        load("S29"), "counters/after.json", lambda r: r["vmstat"].update({counter: r["vmstat"][counter] + 1})
    )
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == first
    assert "total" in {f.rule for f in verdict.findings}


def test_a_counter_that_went_backwards_is_damage() -> None:
    files = change_json(load("S29"), "counters/after.json", lambda r: r["vmstat"].update(pswpin=-1))
    assert judge_capture(files, model()).status is Status.INCONCLUSIVE


def records(files: Files, change: Callable[[list[tuple[int, ...]]], None]) -> Files:
    data = files["guest/log.bin"]
    entries = [tuple(struct.unpack_from("<QHHIQQ", data, o)) for o in range(4096, len(data), 32)]
    change(entries)
    page = bytearray(data[:4096])
    struct.pack_into("<I", page, 64, len(entries))
    return {**files, "guest/log.bin": bytes(page) + b"".join(struct.pack("<QHHIQQ", *e) for e in entries)}


def test_a_wrong_value_read_by_the_guest_is_a_fail() -> None:
    def corrupt(entries: list[tuple[int, ...]]) -> None:
        at = next(i for i, e in enumerate(entries) if e[1] == 3)
        entries[at] = (*entries[at][:4], entries[at][4] ^ 1, entries[at][5])

    verdict = judge_capture(records(load("S61"), corrupt), model())
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "value"


def test_a_token_that_the_guest_never_saw_is_a_fail() -> None:
    """The log of a guest that found its page at once, which the host's trace denies."""

    def forget(entries: list[tuple[int, ...]]) -> None:
        kept = [e for e in entries if e[1] in (1, 2, 3, 10, 13)]
        last = kept.pop()
        setup, touches = [e for e in kept if e[1] not in (2, 3)], [e for e in kept if e[1] in (2, 3)]
        ordered = [*setup, *sorted(touches, key=lambda e: (e[3], e[1])), last]
        entries[:] = [(tsc, *e[1:]) for tsc, e in enumerate(ordered, entries[0][0])]

    verdict = judge_capture(records(load("S29"), forget), model())
    assert verdict.status is Status.FAIL and {"D16", "D39"} & {f.rule for f in verdict.findings}


def test_an_item_that_never_ended_is_a_fail() -> None:
    def forget(entries: list[tuple[int, ...]]) -> None:
        entries[:] = [e for e in entries if e[1] not in (3, 13)]

    files = records(load("S61"), forget)
    control = bytearray(files["guest/log.bin"][:4096])
    struct.pack_into("<I", control, 16, 2)  # state: RUNNING
    struct.pack_into("<Q", control, 32, 0)  # end mark
    files["guest/log.bin"] = bytes(control) + files["guest/log.bin"][4096:]
    files = change_json(files, "end.json", lambda r: r.update(status="guest-timeout", reason="60 s"))
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL
    assert "never ended" in verdict.findings[0].message or any("never ended" in f.message for f in verdict.findings)


def test_kernel_trouble_in_the_host_log_is_a_fail() -> None:
    files = load("S61")
    files["host/dmesg.txt"] = b"[  12.0] WARNING: CPU: 0 PID: 1 at virt/kvm/async_pf.c:90\n"
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL and verdict.taints


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", Status.FAIL),
        ("UBSAN: shift-out-of-bounds in arch/x86/kvm/x86.c:1:2", Status.FAIL),
        ("list_del corruption. prev->next should be a, but was b", Status.FAIL),
        ("I/O error, dev vdb, sector 8 op 0x0:(READ) flags 0x0", Status.INCONCLUSIVE),
        ("Read-error on swap-device (254:0:8)", Status.INCONCLUSIVE),
        ("Out of memory: Killed process 412 (qemu-system-x86)", Status.INCONCLUSIVE),
    ],
)
def test_trouble_is_blamed_on_the_kernel_or_on_its_machine(line: str, status: Status) -> None:
    files = load("S61")
    files["host/dmesg.txt"] += f"[   12.000000] {line}\n".encode()
    files[FILE] = to_json(
        HostStalls(tuple(stalls_in(files["host/dmesg.txt"])), nonce=json.loads(files["plan.json"])["nonce"])
    ).encode()
    verdict = judge_capture(files, model())
    assert verdict.status is status and verdict.taints
    assert line in verdict.reason


@pytest.mark.parametrize(
    ("end", "taints"),
    [("done", False), ("guest-timeout", True), ("qemu-died", True), ("precondition", True), ("unsupported", False)],
)
@pytest.mark.parametrize("lacks", ["guest/log.bin", "precondition.json"])
def test_a_host_on_which_a_scenario_broke_off_is_not_used_again(lacks: str, end: str, taints: bool) -> None:
    files = change_json(load("S61"), "end.json", lambda r: r.update(status=end, reason="why"))
    del files[lacks]
    verdict = judge_capture(files, model())
    assert not verdict.status.as_predicted and verdict.taints is taints


def test_a_host_that_was_not_let_run_says_nothing_of_its_kernel() -> None:
    files = load("S61")
    line = "rcu: INFO: rcu_preempt self-detected stall on CPU"
    files["host/dmesg.txt"] += f"[   12.000000] {line}\n".encode()
    files[FILE] = to_json(
        HostStalls((Stall("12.000000", 21.0, 18.5),), nonce=json.loads(files["plan.json"])["nonce"])
    ).encode()
    verdict = judge_capture(files, model())
    assert verdict.status is Status.PASS and not verdict.taints
    assert any(line in note and "in the 21 s before it" in note and "waited 18.5 s" in note for note in verdict.notes)
    del files[FILE]
    verdict = judge_capture(files, model())
    assert verdict.status is Status.INCONCLUSIVE and "not recorded" in verdict.reason


def with_counter(files: Files, section: str, name: str, delta: int) -> Files:
    """The capture as if this counter had moved by ``delta`` while the guest ran."""
    before, after = (json.loads(files[f"counters/{when}.json"]) for when in ("before", "after"))
    after[section][name] = before[section][name] + delta
    return {**files, "counters/after.json": json.dumps(after).encode()}


def test_memory_stat_of_5_10_is_not_held_against_the_prediction_but_vmstat_is() -> None:
    """memcontrol.c:__count_memcg_events of 5.10 keeps up to 32 events per CPU back."""
    batched = dataclasses.replace(model(), memcg_events_batched=True)
    silent = with_counter(load("S23"), "memory_stat", "pgmajfault", 0)
    assert judge_capture(silent, batched).status is Status.PASS
    assert "PGMAJ: predicted" in judge_capture(silent, model()).reason
    few = with_counter(silent, "vmstat", "pgmajfault", 3)
    assert "PGMAJ_HOST: predicted" in judge_capture(few, batched).reason


@pytest.mark.parametrize(("others", "status"), [(0, Status.FAIL), (5, Status.PASS), (-7, Status.PASS)])
def test_major_faults_counted_twice_are_found_where_memory_stat_lags(others: int, status: Status) -> None:
    """PGMAJFAULT of the whole host without what other processes had: an upper bound, unless one has ended whose faults
    its parent did not get."""
    batched = dataclasses.replace(model(), memcg_events_batched=True)
    silent = with_counter(of_today(load("S23")), "memory_stat", "pgmajfault", 0)
    many = with_counter(silent, "vmstat", "pgmajfault", 29)
    for when, read in (("before", [100, 100]), ("after", [100 + others, 100 + others])):
        raw = json.loads(many[f"counters/{when}.json"])
        many[f"counters/{when}.json"] = json.dumps({**raw, "other_majors": read}).encode()
    verdict = judge_capture(many, batched)
    assert verdict.status is status and ("PGMAJ_REST: predicted" in verdict.reason) is (status is Status.FAIL)
