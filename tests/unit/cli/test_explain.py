# SPDX-License-Identifier: GPL-2.0-or-later
"""`apf explain` as a person uses it, and what it says to wrong questions."""

from __future__ import annotations

import json

import pytest

from harness.cli import main


def explain(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    assert main(["explain", *args]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_walk(capsys: pytest.CaptureFixture[str]) -> None:
    text = explain(capsys, "--backing", "anon", "--state", "swapped", "--kernel", "noio-v7")
    names = [line.strip() for line in text.splitlines() if line.strip().endswith("()")]
    chain = ["tdp_page_fault()", "try_async_pf()", "gfn_to_pfn_async()", "__gfn_to_pfn()", "gfn_to_hva()",
             "hva_to_pfn()", "__get_user_pages_fast()", "get_user_pages_noio()", "__get_user_pages()", "follow_page()",
             "handle_mm_fault()", "do_swap_page()", "lookup_swap_cache()", "async_pf_execute()"]  # fmt: skip
    assert names[: len(chain)] == chain, "the seed's chain in its order"
    assert "-ENOMEM" in text and "outcome: TOKEN" in text
    assert max(map(len, text.splitlines())) <= 120


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(explain(capsys, "--backing", "anon-swapped", "--access", "write", "--cpl", "0", "--json"))
    assert (found["kernel"], found["outcome"]) == ("nowait-6.1", "halt")
    fault, worker = found["phases"][0], found["phases"][1]
    assert (fault["async"], fault["thread"], worker["thread"]) == (True, "V", "W")
    assert fault["counters"]["pgmaj"] == 1 and worker["counters"]["maj"] == 1
    assert len(fault["reads"][0]["pages"]) == 8
    assert {"function", "tested", "result", "why", "citation", "depth", "thread"} == set(fault["steps"][0])


def test_compare(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--backing", "memfd", "--state", "swapped", "--compare", "noio-6.1", "nowait-6.1")
    text = explain(capsys, *args)
    assert "first difference:" in text and "decided in shmem_swapin_folio" in text
    found = json.loads(explain(capsys, *args, "--json"))
    assert {"what": "outcome", "noio-6.1": "token", "nowait-6.1": "sync"} in found["effects"]
    assert "ways part:" in explain(capsys, "--backing", "anon-swapped", "--compare", "noio-6.1-p1", "nowait-6.1")
    same = explain(capsys, "--backing", "anon-thp", "--compare", "noio-6.1", "nowait-6.1")
    assert "V walks the same way in both" in same and "nothing that can be observed differs" in same


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--window", "1"), "outcome: SYNC"),
        (("--page-cluster", "0"), "outcome: SYNC"),
        (("--rotational",), "swap_cluster_readahead()"),
        (("--kernel", "nowait:6.12.117", "--page-cluster", "0"), "outcome: TOKEN"),
        (("--live",), "outcome: REPEATED"),
        (("--synchronous",), "no bio"),
        (("--read-fails",), "outcome: LOOP"),
        (("--interrupts", "off"), "IF=0"),
    ],
)
def test_options_reach_the_model(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], line: str) -> None:
    default = explain(capsys, "--backing", "anon-swapped")
    assert "outcome: TOKEN" in default and (line not in default or "TOKEN" in line)
    assert line in explain(capsys, "--backing", "anon-swapped", *args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--backing", "pfnmap", "--state", "swapcache"), "pfnmap memory is never 'swapcache'"),
        (("--backing", "anon"), "--state is missing"),
        (("--backing", "floppy"), "unknown backing 'floppy'"),
        (("--backing", "anon-swapped", "--kernel", "nowait-9"), "unknown kernel 'nowait-9'"),
        (("--backing", "anon-swapped", "--kernel", "nowait:5.4.1"), "5.4 is not described"),
        (("--backing", "anon-swapped", "--page-cluster", "-1"), "--page-cluster "),
        (("--backing", "anon-swapped", "--page-cluster", "60"), "--page-cluster "),
        (("--backing", "anon-swapped", "--window", "0"), "--window "),
        (("--backing", "anon-swapped", "--swap-count", "0"), "--swap-count "),
        (("--backing", "anon-thp", "--kernel", "noio-v7"), "no transparent huge page"),
        (("--backing", "anon-populated", "--read-only-vma"), "without VM_WRITE"),
    ],
)
def test_wrong_questions(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str) -> None:
    assert message in explain(capsys, *args, code=2)
