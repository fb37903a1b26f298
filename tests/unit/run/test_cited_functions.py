# SPDX-License-Identifier: GPL-2.0-or-later
"""What a finding hangs on that reads differently in the tree under test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts.kernels import citations
from harness.artifacts.kernels.citations import Difference, compare, fingerprints, known, leave, left_in
from harness.contract.words import Access
from harness.judge.verdict_types import Finding, ItemRow, Reader, Verdict
from harness.model.outcomes import Count, Outcome
from harness.model.protocol.rules import RULES
from harness.run.cited_functions import with_differences
from harness.status import Status

WHY = "folio_lock_or_retry: folio_trylock fails, FAULT_FLAG_RETRY_NOWAIT: VM_FAULT_RETRY"
CHANGED = Difference("7.4.2", "7.3.4", 131, ("mm/filemap.c:folio_lock_or_retry",), ("mm/memory.c:vanished",))


def verdict(*findings: Finding) -> Verdict:
    row = ItemRow(
        3,
        "f[0]",
        Access.READ,
        3,
        True,
        False,
        (Outcome.TOKEN,),
        Count(0, 0),
        (Outcome.SYNC,),
        Reader.VCPU,
        False,
        0,
        WHY,
    )
    return Verdict(scenario="S23", status=Status.FAIL, findings=findings, items=(row,))


def test_a_finding_on_an_item_names_the_function_that_decided_it() -> None:
    told = with_differences(verdict(Finding("item", "predicted token, seen sync", 3)), CHANGED)
    assert "stands on folio_lock_or_retry: not as in 7.3.4" in told.findings[0].message
    assert told.notes == (str(CHANGED),)
    other = with_differences(verdict(Finding("item", "predicted token, seen sync", 4)), CHANGED)
    assert other.findings[0].message == "predicted token, seen sync" and other.notes


def test_a_total_hangs_on_all_items_and_a_rule_on_its_source() -> None:
    assert "folio_lock_or_retry" in with_differences(verdict(Finding("total", "x")), CHANGED).findings[0].message
    rule = next(r for r in RULES.values() if "kvm_arch_async_page_present" in r.source)
    of_rule = replace(CHANGED, changed=("arch/x86/kvm/x86.c:kvm_arch_async_page_present",))
    told = with_differences(verdict(Finding(rule.id, "x"), Finding("D99", "y")), of_rule)
    assert "kvm_arch_async_page_present" in told.findings[0].message and told.findings[1].message == "y"


@pytest.mark.parametrize("difference", [None, Difference("7.3.4", "7.3.4", 131, (), ())])
def test_nothing_is_said_of_a_tree_that_was_read_or_is_not_known(difference: Difference | None) -> None:
    plain = verdict(Finding("item", "x", 3))
    assert with_differences(plain, difference) == plain


def test_a_built_kernel_remembers_its_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, folder = tmp_path / "tree", tmp_path / "kernel"
    folder.mkdir()
    (tree / "mm").mkdir(parents=True)
    (tree / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\n")
    (tree / "mm/memory.c").write_text("vm_fault_t do_swap_page(struct vm_fault *vmf)\n{\n\treturn 0;\n}\n")
    assert left_in(folder) is None
    leave(tree, folder)
    found = left_in(folder)
    assert found is not None and (found.release, found.nearest) == ("7.4.0", "7.3.4")
    assert "mm/memory.c:do_swap_page" in found.changed and len(found.gone) == found.cited - 1
    with citations.open_source(tree) as (release, source):
        assert found == compare(release, fingerprints(source, release), known())
    (tree / "Makefile").write_text("VERSION = 5\nPATCHLEVEL = 4\nSUBLEVEL = 1\n")
    (tmp_path / "old").mkdir()
    leave(tree, tmp_path / "old")
    assert left_in(tmp_path / "old") is None
