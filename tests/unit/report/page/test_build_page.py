# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a run: complete, self-contained, and harmless whatever a console says."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from harness.judge.verdict_types import Finding, KnownFaultRow
from harness.report.latency import Latency
from harness.report.page.build_page import build_page
from harness.report.page.page_data import PageData, PastVerdict, VerdictFolder
from harness.report.page.template import PAGE_BYTES
from harness.report.timeline.build_timeline import build_timeline
from harness.report.timeline.svg import svg
from harness.results import Key, Row, RunResult
from harness.status import Status
from tests.unit.report.judged import golden
from tests.unit.rows import row_of

HOSTILE = (
    "</pre></details><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    "\x1b]0;owned\x07 \u202e{{ 7*7 }}{% raw %} javascript:alert(1) '\"><svg onload=document.title=1>"
)
A, B = Key("S29", "debian-6.1"), Key("S29", "noio-6.1")


class Reader(HTMLParser):
    """Tags with their attributes, and the text of the rows of the table "runs"."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self._in_table = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._in_table = dict(attrs).get("id") == "runs"
        if tag == "tr" and self._in_table:
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        if self._in_table and self.rows:
            self.rows[-1] += f" {data}"


def run_of(*rows: Row, planned: tuple[Key, ...] = ()) -> RunResult:
    return RunResult("20261126-1", "apf run", planned or tuple(r.key for r in rows), rows, {"accelerator": "tcg"})


def golden_page() -> str:
    judged = golden("captures", "S29"), golden("captures-noio", "S29")
    rows = [Row(k, j.verdict, "twice") for k, j in zip((A, B), judged, strict=True)]
    drawn = [build_timeline(j) for j in judged]
    plans = [j.evidence.plan for j in judged if j.evidence is not None]
    times = {Latency.TOKEN: list(range(10_000, 60_000, 1000))}
    folders = {
        k: VerdictFolder(plan=p, timeline=svg(d), latencies=times) for k, p, d in zip((A, B), plans, drawn, strict=True)
        if d is not None
    }  # fmt: skip
    return build_page(PageData(run_of(*rows), folders))


def test_everything_is_readable_without_a_script() -> None:
    page = golden_page()
    (row,) = [r for r in Reader(page).rows if "S29" in r]
    assert row.count("PASS") == 2, "both kernels stand side by side"
    for part in ("vCPU 0: [0] read f[8]", "predicted", "RDY=1", 'aria-label="timeline of S29', "fault to token"):
        assert part in page


def test_nothing_is_fetched_from_anywhere() -> None:
    page = golden_page()
    assert not re.findall(r"(?:src|href|action|url)\s*=\s*[\"']?(?!#)[a-z/]", page, re.IGNORECASE)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    (policy,) = [a["content"] for t, a in Reader(page).tags if t == "meta" and "http-equiv" in a]
    assert policy is not None and policy.startswith("default-src 'none';")
    assert "script-src 'sha256-" in policy and "'unsafe-inline'" not in policy.partition("script-src")[2]


def hostile_page() -> str:
    judged = golden("captures", "S29")
    assert judged.evidence is not None
    plan = dataclasses.replace(judged.evidence.plan, title=HOSTILE)
    evidence = dataclasses.replace(judged.evidence, plan=plan)
    key = Key(HOSTILE, HOSTILE)
    verdict = dataclasses.replace(
        judged.verdict, status=Status.FAIL, reason=HOSTILE, log=HOSTILE, notes=(HOSTILE,),
        findings=(Finding(HOSTILE, HOSTILE, 0, 3),),
    )  # fmt: skip
    drawn = build_timeline(dataclasses.replace(judged, verdict=verdict, evidence=evidence))
    assert drawn is not None
    folder = VerdictFolder(
        plan, HOSTILE, {"guest console": HOSTILE, HOSTILE: HOSTILE}, svg(drawn), (HOSTILE,), {}, (HOSTILE,)
    )
    result = dataclasses.replace(
        run_of(Row(key, verdict, HOSTILE)), run=HOSTILE, command=HOSTILE, facts={HOSTILE: HOSTILE}
    )
    return build_page(PageData(result, {key: folder}, {key: PastVerdict(HOSTILE, HOSTILE)}))


def test_a_hostile_console_line_is_harmless() -> None:
    """It adds no element and no attribute to what a page of the same shape has, and no character that does anything."""
    page = hostile_page()
    tags = Reader(page).tags
    assert [t for t, _ in tags].count("script") == 2, "the page's own two"
    assert not [t for t, a in tags if t in ("img", "iframe", "object", "base", "form", "a") and t != "a"]
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on")]
    assert not [a for t, a in tags if t == "a" and not (a.get("href") or "").startswith("#")]
    assert all(c.isprintable() or c in "\n\t" for c in page)
    assert "&lt;script&gt;document.title" in page and "{{ 7*7 }}" in page and "\\x1b]0;owned\\x07" in page


def test_what_changed_since_the_last_run_is_told() -> None:
    rows = row_of(A, Status.FAIL, "D05: lost"), row_of(B, Status.PASS)
    past = {A: PastVerdict("20261125-1", "PASS"), B: PastVerdict("20261125-1", "PASS")}
    page = build_page(PageData(run_of(*rows), {}, past))
    changed = page.partition("Changed since run 20261125-1")[2].partition("</ul>")[0]
    assert "S29 on debian-6.1" in changed and "noio" not in changed
    same = build_page(PageData(run_of(rows[1]), {}, {B: past[B]}))
    assert "No verdict has changed." in same


def test_what_is_missing_is_no_success() -> None:
    page = build_page(PageData(run_of(row_of(A, Status.PASS), planned=(A, B)), {}))
    (row,) = [r for r in Reader(page).rows if "S29" in r]
    assert "PASS" in row and "missing" in row
    assert "1 of 2 without a verdict" in page and 'data-green="0"' in page


@pytest.mark.parametrize(("kernels", "rows"), [(4, 1), (5, 5)])
def test_many_kernels_are_rows_and_few_are_columns(kernels: int, rows: int) -> None:
    keys = [Key("S29", f"k{n}") for n in range(kernels)]
    page = build_page(PageData(run_of(*(row_of(k, Status.PASS) for k in keys)), {}))
    assert len([r for r in Reader(page).rows if "S29" in r]) == rows


def test_the_largest_green_timelines_stand_beside_a_page_that_would_be_too_large() -> None:
    judged = golden("captures", "S29")
    keys = [Key(f"S{n}", "debian-6.1") for n in range(30)]
    red = dataclasses.replace(judged.verdict, status=Status.FAIL, reason="x")
    rows = [Row(key, red if n == 0 else judged.verdict, "t") for n, key in enumerate(keys)]
    size = PAGE_BYTES // 20
    folders = {key: VerdictFolder(timeline="<svg>" + " " * (2 * size if n < 2 else size)) for n, key in enumerate(keys)}
    page = build_page(PageData(run_of(*rows), folders))
    assert PAGE_BYTES - 2 * size < len(page) < 2_000_000, "as many as there is room for"
    assert "S0+debian-6.1/timeline.svg" not in page, "what is red is drawn"
    assert "S1+debian-6.1/timeline.svg" in page, "the largest are left out first"


def test_the_order_in_which_findings_were_seen_is_no_change() -> None:
    faults = [KnownFaultRow(name, predicted=True, shown=True) for name in ("F3", "F2")]
    verdict = dataclasses.replace(row_of(A, Status.FINDING).verdict, known_faults=tuple(faults))
    page = build_page(PageData(run_of(Row(A, verdict)), {}, {A: PastVerdict("20261125-1", "FINDING F2 F3")}))
    assert "No verdict has changed." in page


def test_a_first_run_says_that_it_has_nothing_to_compare_with() -> None:
    assert "No earlier run beside this one" in build_page(PageData(run_of(row_of(A, Status.PASS)), {}))


def test_a_page_of_many_words_leaves_less_room_for_drawings() -> None:
    keys = [Key(f"S{n}", "debian-6.1") for n in range(10)]
    run = run_of(*(Row(key, golden("captures", "S29").verdict, "t") for key in keys))
    size = (PAGE_BYTES - len(build_page(PageData(run, {})))) // 10 + 5000
    folders = {key: VerdictFolder(timeline="<svg>" + " " * size) for key in keys}
    wordy = dataclasses.replace(run, facts={"many": "w" * size})
    drawn = [build_page(PageData(r, folders)).count("<svg>") for r in (run, wordy)]
    assert drawn == [9, 8]
