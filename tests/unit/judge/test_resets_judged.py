# SPDX-License-Identifier: GPL-2.0-or-later
"""Real captures of a reset: with pages outstanding on two vCPUs, and in an artificial halt of the boot CPU."""

from __future__ import annotations

import json

from harness.judge.verdict import judge_capture
from harness.model.kernels import find_kernel
from harness.model.known_faults import with_fixes
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

N61 = find_kernel("nowait-6.1")


def test_pages_outstanding_on_two_vcpus_are_cleared() -> None:
    verdict = judge_capture(packed_capture("reset"), N61)
    assert verdict.status is Status.PASS, verdict.reason


def test_without_the_reset_in_the_log_of_qmp_the_works_are_owed() -> None:
    files = packed_capture("reset")
    lines = [line for line in files["qmp.jsonl"].splitlines(keepends=True) if b'"RESET"' not in line]
    verdict = judge_capture(files | {"qmp.jsonl": b"".join(lines)}, N61)
    assert verdict.status is Status.FAIL and "D05" in {f.rule for f in verdict.findings}


def test_a_hang_by_a_known_finding_is_a_finding_and_names_it() -> None:
    verdict = judge_capture(packed_capture("reset-in-a-halt"), N61)
    assert verdict.word == "FINDING F1" and verdict.reason.startswith("F1: ") and verdict.findings == ()


def test_on_a_kernel_that_is_described_as_fixed_the_same_hang_is_a_fail() -> None:
    verdict = judge_capture(packed_capture("reset-in-a-halt"), with_fixes(N61, ["F1"]))
    assert verdict.status is Status.FAIL and verdict.reason.startswith("this is finding F1")
    assert [f.rule for f in verdict.findings][:2] == ["F1", "stopped"], "the vCPU that never ran again comes first"


def test_a_kernel_with_the_fix_boots_again() -> None:
    """Recorded on 6.1.192 with kernels/patches/fixes/apf-halted."""
    files = packed_capture("reset-in-a-halt-mended")
    verdict = judge_capture(files, with_fixes(N61, ["F1"]))
    assert verdict.status is Status.PASS, verdict.reason
    unaware = judge_capture(files, N61)
    assert unaware.status is Status.FAIL and unaware.reason.startswith("finding F1 is not reproduced any more")
    assert unaware.findings[0].rule == "F1" and not unaware.shown_faults


def test_a_halt_that_a_load_leaves_for_ever_is_the_finding_and_no_other_kernels() -> None:
    """savevm and loadvm of QEMU on 6.1.192, EN off."""
    files = packed_capture("loaded-in-a-halt")
    assert judge_capture(files, N61).word == "FINDING F1"
    verdict = judge_capture(files, with_fixes(N61, ["F1"]))
    assert verdict.status is Status.FAIL and verdict.reason.startswith("this is finding F1")


def test_without_the_load_in_the_log_of_qmp_a_ready_event_is_owed() -> None:
    files = packed_capture("loaded-in-a-halt")
    lines = [line for line in files["qmp.jsonl"].splitlines(keepends=True) if b"loadvm" not in line]
    verdict = judge_capture(files | {"qmp.jsonl": b"".join(lines)}, N61)
    assert verdict.status is Status.FAIL and "D05" in {f.rule for f in verdict.findings}


def test_an_init_by_another_vcpu_drops_the_work_of_a_halt() -> None:
    files = packed_capture("init-in-a-halt")
    verdict = judge_capture(files, N61)
    assert verdict.status is Status.PASS, verdict.reason
    trace = files["trace/events.txt"].replace(b"(INIT|", b"(NMI|")  # as if it had never been accepted
    unexplained = judge_capture(files | {"trace/events.txt": trace}, N61)
    assert unexplained.status is Status.FAIL and "D05" in {f.rule for f in unexplained.findings}


def test_an_nmi_ends_a_halt_for_one_more_touch() -> None:
    verdict = judge_capture(packed_capture("nmi-in-a-halt"), N61)
    assert verdict.status is Status.PASS, verdict.reason
    (nmis,) = (row for row in verdict.totals if row.name == "NMI")
    assert nmis.seen == 1 and nmis.predicted.low == nmis.predicted.high == 1


def test_a_vcpu_that_was_plugged_in_again_has_lost_its_work() -> None:
    """QEMU of a q35: the halted vCPU was ejected by the guest; facts.json names the thread of the one that came."""
    files = packed_capture("replugged-in-a-halt")
    verdict = judge_capture(files, N61)
    assert verdict.status is Status.PASS, verdict.reason
    assert not any(row.name == "MAJ_V" and row.seen is not None for row in verdict.totals), "its thread took it along"
    facts = files["facts.json"].replace(b'"later_tids": [[1, ', b'"later_tids": [[0, ')
    assert judge_capture(files | {"facts.json": facts}, N61).status is not Status.PASS
    facts = files["facts.json"].partition(b', "later_tids"')[0] + b"}}"
    verdict = judge_capture(files | {"facts.json": facts}, N61)
    assert verdict.status is Status.INCONCLUSIVE and "the vCPU thread 204 is missing" in verdict.reason


def test_a_flag_that_was_left_behind_outlives_a_load_and_is_remembered_after_a_reset() -> None:
    """An L2 was halted by its repeated fault on 6.1.192 (F2) when a snapshot was loaded, and on 5.10.262 (F4) when the
    machine was reset."""
    loaded, reset = packed_capture("nested-loaded"), packed_capture("nested-reset")
    assert judge_capture(loaded, N61).word == "FINDING F2"
    assert judge_capture(reset, find_kernel("nowait-5.10")).word == "FINDING F1 F4"
    mended = judge_capture(loaded, with_fixes(N61, ["F2"]))
    assert mended.status is Status.FAIL and mended.reason.startswith("this is finding F2")


def test_a_warning_of_the_host_that_a_finding_explains_is_the_finding() -> None:
    """S192 on 5.10.262: an INIT for a vCPU whose L2 was halted."""
    files, n510 = packed_capture("nested-init"), find_kernel("nowait-5.10")
    assert judge_capture(files, n510).word == "FINDING F6"
    mended = judge_capture(files, with_fixes(n510, ["F6"]))
    assert mended.status is Status.FAIL and mended.reason.startswith("this is finding F6")
    silent = packed_capture("nested-init-mended")  # with kernels/patches/fixes/leave-nested
    assert judge_capture(silent, with_fixes(n510, ["F6"])).status is Status.PASS
    unaware = judge_capture(silent, n510)
    assert unaware.status is Status.FAIL and unaware.reason.startswith("finding F6 is not reproduced any more")


def test_a_token_that_a_reset_overtook_is_counted_by_the_kernel_alone() -> None:
    """pf_guest tells whether it was one; a count that neither answer gives is the kernel's fault."""
    files = packed_capture("explored-queued-and-reset")
    model = find_kernel("nowait-7.3")
    verdict = judge_capture(files, model)
    assert verdict.status is Status.PASS, verdict.reason
    assert "token-or-halt" in [outcome for item in verdict.items for outcome in item.seen]
    counters = json.loads(files["counters/after.json"])
    counters["kvm"]["pf_guest"] += 1
    verdict = judge_capture(files | {"counters/after.json": json.dumps(counters).encode()}, model)
    assert verdict.status is Status.FAIL and "D14" in {f.rule for f in verdict.findings}


def test_a_reset_in_the_pf_handler_leaves_no_record_of_the_token() -> None:
    """noio-6.1, S302: the machine is reset when the 609th token of a loop was injected and its handler had not written
    it down."""
    files = packed_capture("explored-reset-in-a-pf-handler")
    verdict = judge_capture(files, model_of(files, "noio"))
    assert verdict.status is Status.PASS, verdict.reason


def test_where_the_boot_cpu_waits_for_a_vcpu_in_vain_the_others_do_not_begin_anew() -> None:
    """5.10: a vCPU left KVM_RUN for the reset before KVM_REQ_APF_HALT was looked at (F1), and is started in vain; the
    boot CPU lets the others go only when all have begun (main.c:bsp_main), and panics."""
    files = packed_capture("explored-others-wait-for-the-boot-cpu")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert (verdict.word, verdict.findings) == ("FINDING F1", ()), verdict.reason
